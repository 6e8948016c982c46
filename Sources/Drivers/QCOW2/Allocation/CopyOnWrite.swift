import BlockGraph
import IOCore
import StorageSchema
import StrataBase

// What surrounds a guest's data in its new clusters.

extension QCOW2Driver {
    /// Zeroes of at least this many bytes are left to the file below to make, which may not have to write them.
    private static let longZeroes = 128 << 10

    private func headRange(_ reservation: Reservation, _ shape: WriteShape) -> GuestRange {
        GuestRange(reservation.guest, byteCount: shape.head)
    }

    private func tailRange(_ reservation: Reservation, _ shape: WriteShape) -> GuestRange {
        GuestRange(reservation.guest + shape.head + shape.byteCount, byteCount: shape.tail)
    }

    /// Whether head or tail have to be written at all: not where they are zeroes in clusters that read as zeroes already.
    func needsSurroundings(_ reservation: Reservation, _ shape: WriteShape) -> Bool {
        if shape.head == 0 && shape.tail == 0 { return false }
        if !reservation.isKnownZero { return true }
        return !readsAsZero(reservation.firstOld, headRange(reservation, shape)) || !readsAsZero(reservation.lastOld, tailRange(reservation, shape))
    }

    private func readsAsZero(_ old: L2Entry, _ range: GuestRange) -> Bool {
        if range.isEmpty { return true }
        switch old.meaning(in: geometry, version: opened.header.version) {
        case .zero: return true
        case .unallocated: return bytesInBacking(at: range.start, range.byteCount) == 0
        case .normal, .compressed, .invalid: return false
        }
    }

    /// Writes the guest's data and what surrounds it to the reserved clusters; in one write, unless the rest is long and zero.
    func fill(_ reservation: Reservation, _ shape: WriteShape, _ data: IOVector) async throws(BlockError) {
        Trace.qcow2FillBegin(file: file.node.name, guest: reservation.guest.rawValue, head: shape.head, tail: shape.tail)
        defer { Trace.qcow2FillEnd(file: file.node.name, guest: reservation.guest.rawValue) }
        let head = try await surrounding(headRange(reservation, shape), reservation.firstOld, reservation)
        let tail = try await surrounding(tailRange(reservation, shape), reservation.lastOld, reservation)
        let dataStart = reservation.host + shape.head
        if case .longZeroes = head { try await file.writeZeroes(GuestRange(reservation.host.asGuest, byteCount: shape.head)) }
        if case .longZeroes = tail { try await file.writeZeroes(GuestRange((dataStart + shape.byteCount).asGuest, byteCount: shape.tail)) }

        var parts: [IOVector] = []
        var start = dataStart
        if case .bytes(let buffer) = head {
            parts.append(buffer.vector)
            start = reservation.host
        }
        parts.append(data)
        if case .bytes(let buffer) = tail { parts.append(buffer.vector) }
        file.reached(parts.count == 1 ? .writeAio : .cowWrite)
        if parts.count == 1 { return try await file.write(data, at: start.asGuest) }
        let joined = VectorList(parts)
        try await file.write(joined.vector, at: start.asGuest)
        // The vector points into these buffers.
        withExtendedLifetime((head, tail, joined)) {}
    }

    private enum Surrounding {
        case nothing
        case longZeroes
        case bytes(IOBuffer)
    }

    private func surrounding(_ range: GuestRange, _ old: L2Entry, _ reservation: Reservation) async throws(BlockError) -> Surrounding {
        if range.isEmpty { return .nothing }
        if readsAsZero(old, range) {
            if reservation.isKnownZero { return .nothing }
            return range.byteCount >= Self.longZeroes ? .longZeroes : .bytes(IOBuffer(zeroed: range.byteCount))
        }
        let buffer = IOBuffer(byteCount: range.byteCount)
        file.reached(.cowRead)
        switch old.meaning(in: geometry, version: opened.header.version) {
        case .zero: buffer.vector.zero()
        case .unallocated: try await readBacking(buffer.vector, at: range.start)
        case .normal(let host):
            try await file.read(buffer.vector, at: (host + (range.start.rawValue & (geometry.clusterSize - 1))).asGuest)
        case .compressed: try await readCompressed(old, buffer.vector, at: range.start)
        case .invalid: throw BlockError(.corruptImage, "L2 entry for guest offset \(range.start) is invalid")
        }
        return .bytes(buffer)
    }
}
