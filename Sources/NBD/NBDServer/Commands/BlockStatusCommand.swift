import BlockGraph
import IOCore
import NBDProtocol
import StrataBase

extension ServerConnection {
    /// - Parameter contexts: those that the reply tells of, at least one.
    func blockStatus(_ frame: RequestFrame, _ contexts: [MetaContext]) {
        if contexts == [.baseAllocation], let extents = allocationAtOnce(frame) { return reply([extents], contexts, to: frame) }
        var request = QueuedRequest(frame)
        request.metaContexts = contexts
        submit(request)
    }

    private func allocationAtOnce(_ frame: RequestFrame) -> BlockStatusExtents? {
        var extents = newExtents(frame)
        while extents.coveredByteCount < frame.range.byteCount {
            let rest = GuestRange(
                frame.range.start + extents.coveredByteCount, byteCount: frame.range.byteCount - extents.coveredByteCount)
            guard let status = backend.tryBlockStatus(of: rest, precise: true), status.isFinal else { return nil }
            if !extents.append(byteCount: min(status.byteCount, rest.byteCount), state: BaseAllocation.state(of: status)) { break }
        }
        return extents
    }

    func blockStatusSlowly(_ frame: RequestFrame, _ contexts: [MetaContext]) async throws(BlockError) {
        var all: [BlockStatusExtents] = []
        for context in contexts {
            var extents = newExtents(frame)
            while extents.coveredByteCount < frame.range.byteCount, phase != .closed {
                let rest = GuestRange(
                    frame.range.start + extents.coveredByteCount, byteCount: frame.range.byteCount - extents.coveredByteCount)
                let (byteCount, state) = try await self.state(of: context, rest)
                if !extents.append(byteCount: min(byteCount, rest.byteCount), state: state) { break }
            }
            all.append(extents)
        }
        reply(all, contexts, to: frame)
    }

    /// What a context says about the beginning of a range.
    private func state(of context: MetaContext, _ range: GuestRange) async throws(BlockError) -> (byteCount: Int, state: UInt32) {
        switch context.kind {
        case .baseAllocation:
            let (status, _, _) = try await backend.blockStatus(of: range, precise: true)
            return (status.byteCount, BaseAllocation.state(of: status).rawValue)
        case .allocationDepth:
            let (status, depth, _) = try await backend.blockStatus(of: range, precise: false)
            return (status.byteCount, status.flags.contains(.allocated) ? UInt32(clamping: depth + 1) : 0)
        case .dirtyBitmap:
            guard let bitmap = bitmaps[context.identifier] else { preconditionFailure("an export has the bitmaps that it offers") }
            let run = bitmap.run(in: range)
            return (run.byteCount, run.isDirty ? 1 : 0)
        }
    }

    private func newExtents(_ frame: RequestFrame) -> BlockStatusExtents {
        BlockStatusExtents(onlyOne: frame.flags.contains(.requestOne), isExtended: format == .extended)
    }

    /// One chunk for each context.
    private func reply(_ all: [BlockStatusExtents], _ contexts: [MetaContext], to frame: RequestFrame) {
        Trace.nbdRequestEnd(client: self, cookie: frame.cookie, error: 0)
        guard phase != .closed else { return }
        for (index, (extents, context)) in zip(all, contexts).enumerated() {
            let payload = extents.payloadByteCount(format)
            sendQueue.append(format.headerSize + payload) { bytes in
                format.encodeHeader(
                    format == .extended ? .blockStatusExtended : .blockStatus, flags: index == contexts.count - 1 ? .done : [], frame.reference,
                    payloadByteCount: payload, into: &bytes)
                extents.encodePayload(context, format, into: &bytes, at: format.headerSize)
            }
        }
    }
}

extension BlockStatus {
    /// Whether nothing below the node has a say: not a backing file, and not the file that may know of zeroes.
    fileprivate var isFinal: Bool { flags.contains(.allocated) && !(flags.isSuperset(of: [.recurse, .offsetValid]) && file != nil) }
}
