package import IOCore
package import StrataBase
import Synchronization

/// Accepts the clients of one socket.
package final class ClientListener: EventSource {
    package let socket: ListeningSocket
    private let context: IOContext
    private let accepted: @Sendable (ConnectedSocket) -> Void
    private let token = Mutex<WatchToken?>(nil)

    package init(_ socket: ListeningSocket, context: IOContext, accepted: @escaping @Sendable (ConnectedSocket) -> Void) {
        self.socket = socket
        self.context = context
        self.accepted = accepted
    }

    /// On the context's thread.
    package func start() throws(BlockError) {
        let watch = try context.watch(socket.descriptor, for: .readable, self)
        token.withLock { $0 = watch }
    }

    package func ready(_ events: ReadyEvents) {
        do throws(BlockError) {
            while let client = try socket.accept() { accepted(client) }
        } catch {
            // Out of descriptors: the client keeps waiting, and so that we do not spin on it, we look again a little later.
            guard let watch = token.withLock({ $0 }) else { return }
            context.changeWatch(watch, to: [])
            _ = context.schedule(after: .milliseconds(100)) { [context] in context.changeWatch(watch, to: .readable) }
        }
    }

    /// Takes no more clients and removes the socket's file. On the context's thread.
    package func stop() {
        let watch = token.withLock { token in
            defer { token = nil }
            return token
        }
        if let watch { context.unwatch(watch) }
        socket.removeSocketFile()
    }
}
