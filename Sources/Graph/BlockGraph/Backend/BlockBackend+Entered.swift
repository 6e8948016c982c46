package import StrataBase

// Several requests through several backends that count as one: a copy reads here and writes there. Drained sections wait for the whole of it, so
// that whoever holds something in the middle (a range that others wait for) never stands at a closed gate with it.

extension BlockBackend {
    /// Enters all of the backends: with success requests go to their roots directly (`backend.root.read`). Pair with `leave`.
    ///
    /// While one of the gates is closed none of the others is held, so that a section which closes several of them is not waited for in vain.
    /// - Throws: when one of the nodes is inactive; then none is entered.
    package static func enter(_ backends: [BlockBackend]) async throws(BlockError) {
        while let closed = tryEnter(backends) { await closed.gate.waitUntilOpen() }
        do throws(BlockError) {
            for backend in backends { try backend.checkActive() }
        } catch {
            leave(backends)
            throw error
        }
    }

    package static func leave(_ backends: [BlockBackend]) {
        for backend in backends { backend.gate.leave() }
    }

    /// Runs `body` as one request of all the backends.
    package static func withEntered<Result>(
        _ backends: [BlockBackend], _ body: () async throws(BlockError) -> Result
    ) async throws(BlockError) -> Result {
        try await enter(backends)
        defer { leave(backends) }
        return try await body()
    }

    /// - Returns: nil when all are entered, else the one that is closed, and then none is.
    private static func tryEnter(_ backends: [BlockBackend]) -> BlockBackend? {
        for index in backends.indices where !backends[index].gate.tryEnter() {
            for entered in backends[..<index] { entered.gate.leave() }
            return backends[index]
        }
        return nil
    }
}
