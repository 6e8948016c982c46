import IOCore
import StrataBase

/// Waiting for somebody to connect (`wait=on`).
enum FirstClient {
    private enum Outcome: Sendable { case waiting, ready, cancelled }

    private final class Source: EventSource {
        private let outcome: AsyncCondition<Outcome>
        init(_ outcome: AsyncCondition<Outcome>) { self.outcome = outcome }
        func ready(_ events: ReadyEvents) { outcome.update { $0 = .ready } }
    }

    /// On the context's thread.
    /// - Throws: `.cancelled` when `untilCancelled` returns before a client comes.
    static func wait(
        on socket: ListeningSocket, _ context: IOContext, untilCancelled: @escaping @Sendable () async -> Void
    ) async throws(BlockError) -> ConnectedSocket {
        let outcome = AsyncCondition(Outcome.waiting)
        // Left behind when a client comes first; it ends with the daemon.
        context.spawn {
            await untilCancelled()
            outcome.update { $0 = .cancelled }
        }
        while true {
            if let client = try socket.accept() { return client }
            outcome.update { if $0 == .ready { $0 = .waiting } }
            let token = try context.watch(socket.descriptor, for: .readable, Source(outcome))
            let result = await outcome.wait { $0 == .waiting ? nil : $0 }
            context.unwatch(token)
            if result == .cancelled { throw BlockError(.cancelled, "ended while waiting for a connection") }
        }
    }
}
