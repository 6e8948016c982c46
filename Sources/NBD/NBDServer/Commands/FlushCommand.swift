import BlockGraph
import NBDProtocol
import StrataBase

extension ServerConnection {
    /// Makes durable what was acknowledged before, on whichever connection: the backend flushes the whole node.
    func flush(_ frame: RequestFrame) async throws(BlockError) {
        try await backend.flush()
        replyDone(to: frame)
    }
}
