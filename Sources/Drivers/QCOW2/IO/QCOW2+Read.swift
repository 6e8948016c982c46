package import BlockGraph
package import IOCore
import StorageSchema
package import StrataBase
import Synchronization

extension QCOW2Driver {
    /// Reads what can be had without waiting: mapping in memory, data in the page cache (or wherever the file below finds it at once).
    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        if file.observesFaultPoints { return false }
        let total = target.byteCount
        var done = 0
        while done < total {
            guard let (extent, ticket) = tryLookUp(at: offset + done, limit: total - done) else { return false }
            let part = done == 0 && extent.byteCount == total ? target : target.slice(at: done, byteCount: extent.byteCount)
            switch extent.kind {
            case .normal:
                let isRead = tryReadData(part, at: extent.host, guest: offset + done)
                inFlight.leave(ticket)
                if !isRead { return false }
            case .zero, .zeroAllocated: part.zero()
            case .unallocated, .reserved: if !tryReadBacking(part, at: offset + done) { return false }
            case .compressed: if !copyDecompressed(extent.entry, part, at: offset + done) { return false }
            }
            done += extent.byteCount
        }
        return true
    }

    /// The extent at `offset`, with a ticket if it is `.normal`.
    private func tryLookUp(at offset: GuestOffset, limit: Int) -> (GuestExtent, InFlightIO.Ticket)? {
        while true {
            let missing: Int
            do {
                return try state.withLock { state throws(Obstacle) in
                    let extent = try state.extent(at: offset, limit: limit)
                    return (extent, extent.kind == .normal ? inFlight.enter(epoch: state.epoch) : 0)
                }
            } catch {
                guard case .l2Slice(let slice) = error else { return nil }
                missing = slice
            }
            if !tryLoadSlice(missing) { return nil }
        }
    }

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        let total = target.byteCount
        var done = 0
        while done < total {
            let position = offset + done
            let limit = total - done
            let (extent, ticket) = try await step { state throws(Obstacle) in
                let extent = try state.extent(at: position, limit: limit)
                let usesHost = extent.kind == .normal || extent.kind == .compressed
                return (extent, usesHost ? inFlight.enter(epoch: state.epoch) : -1)
            }
            defer { if ticket >= 0 { inFlight.leave(ticket) } }
            Trace.qcow2ReadExtent(file: file.node.name, guest: position.rawValue, kind: "\(extent.kind)", bytes: extent.byteCount, host: extent.host.rawValue)
            let part = target.slice(at: done, byteCount: extent.byteCount)
            switch extent.kind {
            case .normal:
                file.reached(.readAio)
                try await readData(part, at: extent.host, guest: position)
            case .zero, .zeroAllocated: part.zero()
            case .unallocated, .reserved:
                file.reached(.readBackingAio)
                try await readBacking(part, at: position)
            case .compressed:
                file.reached(.readCompressed)
                try await readCompressed(extent.entry, part, at: position)
            }
            done += extent.byteCount
        }
    }

    // MARK: Backing

    /// Reads through to the backing file. Where there is none, or it has ended, there are zeroes.
    func readBacking(_ target: IOVector, at offset: GuestOffset) async throws(BlockError) {
        guard let backing else { return target.zero() }
        let inside = bytesInBacking(at: offset, target.byteCount)
        if inside < target.byteCount { target.slice(at: inside, byteCount: target.byteCount - inside).zero() }
        if inside > 0 { try await backing.read(target.slice(at: 0, byteCount: inside), at: offset) }
    }

    func tryReadBacking(_ target: IOVector, at offset: GuestOffset) -> Bool {
        withBacking { backing in
            guard let backing else {
                target.zero()
                return true
            }
            let inside = max(0, min(target.byteCount, backing.length - offset.rawValue))
            if inside > 0, !backing.takesSynchronousRequests || !backing.tryRead(target.slice(at: 0, byteCount: inside), at: offset) { return false }
            if inside < target.byteCount { target.slice(at: inside, byteCount: target.byteCount - inside).zero() }
            return true
        }
    }

    /// How many of the first `byteCount` bytes at `offset` the backing file has.
    func bytesInBacking(at offset: GuestOffset, _ byteCount: Int) -> Int {
        withBacking { backing in backing.map { max(0, min(byteCount, $0.length - offset.rawValue)) } ?? 0 }
    }
}
