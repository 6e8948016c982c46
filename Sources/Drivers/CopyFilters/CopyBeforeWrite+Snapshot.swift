import BlockCopy
import BlockGraph
import IOCore
import StrataBase

// The disk as it was when the filter came, for `snapshot-access`.

extension CopyBeforeWriteDriver {
    /// Bytes.
    var snapshotLength: Int { keeper.byteCount }

    func tryReadSnapshot(_ data: IOVector, at offset: GuestOffset) -> Bool {
        let place: SnapshotKeeper.Place?
        do throws(BlockError) { place = try keeper.enter(GuestRange(offset, byteCount: data.byteCount), whole: true) } catch { return false }
        switch place {
        case .target?: return target.tryRead(data, at: offset)
        case .disk(_, let reader)?:
            defer { keeper.leave(reader) }
            return file.tryRead(data, at: offset)
        case nil: return false
        }
    }

    func readSnapshot(_ data: IOVector, at offset: GuestOffset) async throws(BlockError) {
        var done = 0
        while done < data.byteCount {
            let start = offset + done
            switch try keeper.enter(GuestRange(start, byteCount: data.byteCount - done)) {
            case .target(let byteCount)?:
                try await target.read(data.slice(at: done, byteCount: byteCount), at: start)
                done += byteCount
            case .disk(let byteCount, let reader)?:
                defer { keeper.leave(reader) }
                try await file.read(data.slice(at: done, byteCount: byteCount), at: start)
                done += byteCount
            case nil: preconditionFailure("the beginning of a range is in one place")
            }
        }
    }

    /// Whether the beginning of the range reads as zeroes. Where it lies is nobody's business: it is going to move.
    func snapshotStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        var found: BlockStatus
        switch try keeper.enter(range) {
        case .target(let byteCount)?:
            let inside = min(byteCount, target.length - range.start.rawValue)
            // A target that is too small: reads find zeroes there.
            if inside <= 0 { return BlockStatus(byteCount: byteCount, flags: [.zero, .allocated]) }
            found = try await target.node.chainStatus(of: GuestRange(range.start, byteCount: inside), precise: precise).status
        case .disk(let byteCount, let reader)?:
            defer { keeper.leave(reader) }
            let inside = min(byteCount, file.length - range.start.rawValue)
            if inside <= 0 { return BlockStatus(byteCount: byteCount, flags: [.zero, .allocated]) }
            found = try await file.node.chainStatus(of: GuestRange(range.start, byteCount: inside), precise: precise).status
        case nil: preconditionFailure("the beginning of a range is in one place")
        }
        found.flags = found.flags.contains(.zero) ? [.zero, .allocated] : [.data, .allocated]
        return BlockStatus(byteCount: found.byteCount, flags: found.flags)
    }

    /// What the range held is not wanted any more: it is neither kept from now on nor can it be read, and the target gives its space back.
    func discardSnapshot(_ range: GuestRange) async throws(BlockError) {
        let whole = keeper.forget(range)
        if whole.isEmpty { return }
        work.clear(whole)
        try await target.discard(GuestRange(whole.start, byteCount: min(whole.byteCount, max(0, target.length - whole.start.rawValue))))
    }
}
