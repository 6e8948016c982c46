import BlockGraph
import IOCore
import StorageSchema
import StrataBase

// What surrounds a guest's data in its new clusters.

extension QCOW2Driver {
    /// Zeroes of at least this many bytes are left to the file below to make, which may not have to write them.
    private static let longZeroes = 128 << 10

    /// Whether head or tail have to be written at all: not where they are zeroes in clusters that read as zeroes already.
    func needsSurroundings(_ reservation: Reservation, _ shape: WriteShape) -> Bool {
        if shape.head == 0 && shape.tail == 0 { return false }
        // Zeroes that nobody has encrypted do not read as zeroes.
        if !reservation.isKnownZero || isEncrypted { return true }
        return !readsAsZero(reservation.firstOld, shape.headRange) || !readsAsZero(reservation.lastOld, shape.tailRange)
    }

    /// Whether a range of one cluster read as zeroes when its entry was `old`.
    private func readsAsZero(_ old: L2Entry, _ range: GuestRange) -> Bool {
        if range.isEmpty { return true }
        if case .compressed = old.meaning(in: geometry, version: opened.header.version) { return false }
        if !geometry.hasSubclusters { return readsAsZero(old.kind(ofSubcluster: 0, in: geometry), range) }
        return parts(of: range, old).allSatisfy { readsAsZero($0.kind, $0.range) }
    }

    private func readsAsZero(_ kind: GuestExtent.Kind, _ range: GuestRange) -> Bool {
        switch kind {
        case .zero, .zeroAllocated: true
        case .unallocated, .reserved: bytesInBacking(at: range.start, range.byteCount) == 0
        case .normal, .compressed: false
        }
    }

    /// Cuts a range of one cluster, which is not compressed, where its subclusters change what they mean.
    private func parts(of range: GuestRange, _ entry: L2Entry) -> [(kind: GuestExtent.Kind, range: GuestRange)] {
        var parts: [(kind: GuestExtent.Kind, range: GuestRange)] = []
        var position = range.start
        while position < range.end {
            let inCluster = position.rawValue & (geometry.clusterSize - 1)
            let index = inCluster >> geometry.subclusterBits
            let run = entry.run(fromSubcluster: index, in: geometry)
            let count = min(range.end - position, (index + run) << geometry.subclusterBits - inCluster)
            parts.append((entry.kind(ofSubcluster: index, in: geometry), GuestRange(position, byteCount: count)))
            position += count
        }
        return parts
    }

    /// Writes the guest's data and what surrounds it to the reserved clusters; in one write, unless the rest is long and zero.
    func fill(_ reservation: Reservation, _ shape: WriteShape, _ data: IOVector) async throws(BlockError) {
        Trace.qcow2FillBegin(file: file.node.name, guest: reservation.guest.rawValue, head: shape.head, tail: shape.tail)
        defer { Trace.qcow2FillEnd(file: file.node.name, guest: reservation.guest.rawValue) }
        let head = try await surrounding(shape.headRange, reservation.firstOld, reservation)
        let tail = try await surrounding(shape.tailRange, reservation.lastOld, reservation)
        let dataStart = shape.host(of: reservation)
        if case .longZeroes = head { try await dataFile.writeZeroes(GuestRange((dataStart - shape.head).asGuest, byteCount: shape.head)) }
        if case .longZeroes = tail { try await dataFile.writeZeroes(GuestRange((dataStart + shape.byteCount).asGuest, byteCount: shape.tail)) }

        var parts: [IOVector] = []
        var start = dataStart
        if case .bytes(let buffer) = head {
            parts.append(buffer.vector)
            start = dataStart - shape.head
        }
        parts.append(data)
        if case .bytes(let buffer) = tail { parts.append(buffer.vector) }
        file.reached(.writeAio)
        if parts.count > 1 { file.reached(.cowWrite) }
        let guest = shape.guest - (dataStart - start)
        if parts.count == 1 { return try await writeData(data, at: start, guest: guest) }
        let joined = VectorList(parts)
        try await writeData(joined.vector, at: start, guest: guest)
        // The vector points into these buffers.
        withExtendedLifetime((head, tail, joined)) {}
    }

    enum FillAttempt {
        case written
        /// Nothing was written to the reserved clusters.
        case untouched
        /// The file does not write without waiting, or has written a part only.
        case refused
    }

    /// What is copied at most without waiting, with the guest's data between: the time of some pages' copying, in bytes.
    private static let longestCopyAtOnce = 128 << 10

    /// The same without waiting: where nothing has to be written around the data, or only zeroes and what the backing file has at hand.
    func tryFill(_ reservation: Reservation, _ shape: WriteShape, _ data: IOVector) -> FillAttempt {
        let start = shape.host(of: reservation)
        if !needsSurroundings(reservation, shape) { return tryWriteData(data, at: start, guest: shape.guest) ? .written : .refused }
        let whole = shape.written
        if whole.byteCount > Self.longestCopyAtOnce { return .untouched }
        let buffer = IOBuffer(byteCount: whole.byteCount)
        defer { withExtendedLifetime(buffer) {} }
        let head = buffer.vector(at: 0, byteCount: shape.head)
        let tail = buffer.vector(at: shape.head + shape.byteCount, byteCount: shape.tail)
        if shape.head > 0, shape.tail > 0, reservation.clusterCount == 1, !geometry.hasSubclusters {
            // One request costs less than two, also when the guest's data takes the place of some of it.
            guard trySurrounding(whole, reservation.firstOld, buffer.vector) else { return .untouched }
        } else {
            guard trySurrounding(shape.headRange, reservation.firstOld, head), trySurrounding(shape.tailRange, reservation.lastOld, tail) else { return .untouched }
        }
        // Zeroes over what reads as zeroes only cost space. Zeroes that nobody has encrypted do not read as such.
        if reservation.isKnownZero, !isEncrypted, head.isZero, tail.isZero { return tryWriteData(data, at: start, guest: shape.guest) ? .written : .refused }
        buffer.vector(at: shape.head, byteCount: shape.byteCount).copy(from: data)
        return tryWriteData(buffer.vector, at: start - shape.head, guest: whole.start) ? .written : .refused
    }

    /// Finds the old bytes of a range of one cluster, where they are zeroes or in the backing file throughout.
    private func trySurrounding(_ range: GuestRange, _ old: L2Entry, _ target: IOVector) -> Bool {
        if range.isEmpty { return true }
        if case .compressed = old.meaning(in: geometry, version: opened.header.version) { return false }
        let first = (range.start.rawValue & (geometry.clusterSize &- 1)) >> geometry.subclusterBits
        let last = ((range.end.rawValue &- 1) & (geometry.clusterSize &- 1)) >> geometry.subclusterBits
        if first != last { return false }
        switch old.kind(ofSubcluster: first, in: geometry) {
        case .zero, .zeroAllocated:
            target.zero()
            return true
        case .unallocated, .reserved: return tryReadBacking(target, at: range.start)
        case .normal, .compressed: return false
        }
    }

    private enum Surrounding {
        case nothing
        case longZeroes
        case bytes(IOBuffer)
    }

    private func surrounding(_ range: GuestRange, _ old: L2Entry, _ reservation: Reservation) async throws(BlockError) -> Surrounding {
        if range.isEmpty { return .nothing }
        if readsAsZero(old, range) {
            if isEncrypted { return .bytes(IOBuffer(zeroed: range.byteCount)) }
            if reservation.isKnownZero { return .nothing }
            return range.byteCount >= Self.longZeroes ? .longZeroes : .bytes(IOBuffer(zeroed: range.byteCount))
        }
        let buffer = IOBuffer(byteCount: range.byteCount)
        defer { withExtendedLifetime(buffer) {} }
        file.reached(.cowRead)
        if case .compressed = old.meaning(in: geometry, version: opened.header.version) {
            try await readCompressed(old, buffer.vector, at: range.start)
            return .bytes(buffer)
        }
        for part in parts(of: range, old) {
            let target = buffer.vector(at: part.range.start - range.start, byteCount: part.range.byteCount)
            switch part.kind {
            case .zero, .zeroAllocated: target.zero()
            case .unallocated, .reserved: try await readBacking(target, at: part.range.start)
            case .normal:
                let inCluster = part.range.start.rawValue & (geometry.clusterSize - 1)
                try await readData(target, at: HostOffset(old.hostOffset) + inCluster, guest: part.range.start)
            case .compressed: throw BlockError(.corruptImage, "L2 entry for guest offset \(range.start) is invalid")
            }
        }
        return .bytes(buffer)
    }
}
