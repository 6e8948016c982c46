import BlockGraph
import IOCore
import NBDProtocol
import StrataBase

extension ServerConnection {
    /// Brings data near: it is read, in pieces, and dropped.
    func cache(_ frame: RequestFrame) async throws(BlockError) {
        let pieceLimit = 1 << 20
        let buffer = IOBuffer(byteCount: min(pieceLimit, frame.range.byteCount))
        defer { withExtendedLifetime(buffer) {} }
        var rest = frame.range
        while !rest.isEmpty, phase != .closed {
            let count = min(rest.byteCount, pieceLimit)
            try await backend.read(buffer.vector(at: 0, byteCount: count), at: rest.start, flags: .prefetch)
            rest = GuestRange(rest.start + count, byteCount: rest.byteCount - count)
        }
        replyDone(to: frame)
    }
}
