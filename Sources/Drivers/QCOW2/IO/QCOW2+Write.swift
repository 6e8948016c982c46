package import BlockGraph
package import IOCore
import StorageSchema
package import StrataBase
import Synchronization

extension QCOW2Driver {
    /// Writes what needs no waiting: over clusters of the image's own, or into fresh clusters where what has to be copied is at hand.
    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        if file.observesFaultPoints || flags.contains(.compressed) { return false }
        let total = source.byteCount
        var done = 0
        while done < total {
            guard let plan = tryPlan(at: offset + done, total - done) else { return false }
            switch plan {
            case .inPlace(let host, let byteCount, let ticket):
                let part = done == 0 && byteCount == total ? source : source.slice(at: done, byteCount: byteCount)
                let isWritten = tryWriteData(part, at: host, guest: offset + done)
                inFlight.leave(ticket)
                if !isWritten { return false }
                Trace.qcow2WriteInPlace(file: file.node.name, guest: (offset + done).rawValue, host: host.rawValue, bytes: byteCount)
                done += byteCount
            case .reserved(let reservation):
                let shape = WriteShape(reservation, offset + done, total - done, geometry)
                Trace.qcow2Allocate(file: file.node.name, guest: reservation.guest.rawValue, host: reservation.host.rawValue, clusters: reservation.clusterCount)
                let attempt = tryFill(reservation, shape, source.slice(at: done, byteCount: shape.byteCount))
                // A cancelled reservation is no longer known to be zero, so a try in vain makes the real write dearer.
                if attempt == .refused { fileRefusesTries.store(true, ordering: .relaxed) }
                if attempt != .written || !tryPublish(reservation, shape) {
                    Trace.qcow2Cancel(file: file.node.name, guest: reservation.guest.rawValue, host: reservation.host.rawValue, clusters: reservation.clusterCount)
                    finish(reservation, state.withLock { $0.cancel(reservation, isUntouched: attempt == .untouched) })
                    return false
                }
                done += shape.byteCount
            }
        }
        return true
    }

    private func tryPlan(at offset: GuestOffset, _ byteCount: Int) -> WritePlan? {
        let onlyInPlace = fileRefusesTries.load(ordering: .relaxed)
        while true {
            let missing: Int
            do {
                return try state.withLock { state throws(Obstacle) in
                    try state.planWriteAtOnce(at: offset, byteCount: byteCount, onlyInPlace: onlyInPlace, inFlight)
                }
            } catch {
                guard case .l2Slice(let slice) = error else { return nil }
                missing = slice
            }
            if !tryLoadSlice(missing) { return nil }
        }
    }

    private func tryPublish(_ reservation: Reservation, _ shape: WriteShape) -> Bool {
        let waiters = try? state.withLock { state throws(Obstacle) in try state.publish(reservation, written: shape.written) }
        guard let waiters else { return false }
        finish(reservation, waiters)
        Trace.qcow2Publish(file: file.node.name, guest: reservation.guest.rawValue, host: reservation.host.rawValue, clusters: reservation.clusterCount)
        return true
    }

    func finish(_ reservation: Reservation, _ waiters: [CheckedContinuation<Void, Never>]) {
        inFlight.leave(reservation.ticket)
        for waiter in waiters { waiter.resume() }
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        try await prepareForWriting()
        // A compressed cluster would lie in the file for everybody to read.
        if flags.contains(.compressed), !isEncrypted { try await writeCompressed(source, at: offset) } else { try await writePlain(source, at: offset) }
        try await limitUnmapped()
    }

    /// Writes data as it is.
    func writePlain(_ source: IOVector, at offset: GuestOffset) async throws(BlockError) {
        let total = source.byteCount
        var done = 0
        while done < total {
            let position = offset + done
            let left = total - done
            let plan = try await step { state throws(Obstacle) in try state.planWrite(at: position, byteCount: left, inFlight) }
            switch plan {
            case .inPlace(let host, let byteCount, let ticket):
                defer { inFlight.leave(ticket) }
                file.reached(.writeAio)
                Trace.qcow2WriteInPlace(file: file.node.name, guest: position.rawValue, host: host.rawValue, bytes: byteCount)
                try await writeData(source.slice(at: done, byteCount: byteCount), at: host, guest: position)
                done += byteCount
            case .reserved(let reservation):
                let shape = WriteShape(reservation, position, left, geometry)
                file.reached(.clusterAlloc)
                Trace.qcow2Allocate(file: file.node.name, guest: reservation.guest.rawValue, host: reservation.host.rawValue, clusters: reservation.clusterCount)
                do {
                    try await fill(reservation, shape, source.slice(at: done, byteCount: shape.byteCount))
                    let waiters = try await step { state throws(Obstacle) in try state.publish(reservation, written: shape.written) }
                    finish(reservation, waiters)
                    Trace.qcow2Publish(file: file.node.name, guest: reservation.guest.rawValue, host: reservation.host.rawValue, clusters: reservation.clusterCount)
                } catch {
                    Trace.qcow2Cancel(file: file.node.name, guest: reservation.guest.rawValue, host: reservation.host.rawValue, clusters: reservation.clusterCount)
                    finish(reservation, state.withLock { $0.cancel(reservation) })
                    throw error
                }
                done += shape.byteCount
            }
        }
    }
}

/// How a guest write lies in its reservation. Bytes.
struct WriteShape {
    /// Where the guest's data goes.
    let guest: GuestOffset
    /// What is written before the guest's data, from the old contents of its cluster.
    let head: Int
    /// The guest's data.
    let byteCount: Int
    /// After it, in the last cluster.
    let tail: Int

    init(_ reservation: Reservation, _ offset: GuestOffset, _ wanted: Int, _ geometry: ClusterGeometry) {
        let whole = reservation.clusterCount << geometry.clusterBits
        guest = offset
        head = offset.rawValue & (reservation.headUnit &- 1)
        byteCount = min(wanted, whole - (offset - reservation.guest))
        tail = -(offset.rawValue + byteCount) & (reservation.tailUnit &- 1)
    }

    var headRange: GuestRange { GuestRange(guest - head, byteCount: head) }
    var tailRange: GuestRange { GuestRange(guest + byteCount, byteCount: tail) }
    /// All that is written.
    var written: GuestRange { GuestRange(guest - head, byteCount: head + byteCount + tail) }
    /// Where the guest's data goes in the host clusters of the reservation.
    func host(of reservation: Reservation) -> HostOffset { reservation.host + (guest - reservation.guest) }
}
