import BlockGraph
import IOCore
import NBDProtocol
import StrataBase

extension ServerConnection {
    func blockStatus(_ frame: RequestFrame) {
        var extents = BlockStatusExtents(onlyOne: frame.flags.contains(.requestOne))
        while extents.coveredByteCount < frame.range.byteCount {
            let rest = GuestRange(
                frame.range.start + extents.coveredByteCount, byteCount: frame.range.byteCount - extents.coveredByteCount)
            guard let status = backend.tryBlockStatus(of: rest, precise: true), status.isFinal else {
                return submit(QueuedRequest(frame: frame, payload: nil, heldByteCount: 0))
            }
            if !extents.append(byteCount: min(status.byteCount, rest.byteCount), state: BaseAllocation.state(of: status)) { break }
        }
        replyExtents(extents, to: frame)
    }

    func blockStatusSlowly(_ frame: RequestFrame) async throws(BlockError) {
        var extents = BlockStatusExtents(onlyOne: frame.flags.contains(.requestOne))
        while extents.coveredByteCount < frame.range.byteCount, phase != .closed {
            let rest = GuestRange(
                frame.range.start + extents.coveredByteCount, byteCount: frame.range.byteCount - extents.coveredByteCount)
            let (status, _, _) = try await backend.blockStatus(of: rest, precise: true)
            if !extents.append(byteCount: min(status.byteCount, rest.byteCount), state: BaseAllocation.state(of: status)) { break }
        }
        replyExtents(extents, to: frame)
    }

    /// One chunk for each negotiated context.
    private func replyExtents(_ extents: BlockStatusExtents, to frame: RequestFrame) {
        guard phase != .closed else { return }
        for (index, context) in metaContexts.enumerated() {
            let isLast = index == metaContexts.count - 1
            sendQueue.append(extents.encodedSize) { extents.encode(context, flags: isLast ? .done : [], cookie: frame.cookie, into: &$0) }
        }
    }
}

extension BlockStatus {
    /// Whether nothing below the node has a say: not a backing file, and not the file that may know of zeroes.
    fileprivate var isFinal: Bool { flags.contains(.allocated) && !(flags.isSuperset(of: [.recurse, .offsetValid]) && file != nil) }
}
