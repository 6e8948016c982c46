package import IOCore
import StrataBase
import Synchronization

/// Turns what arrives on a descriptor into a sequence of chunks, while other things go on in the same context.
package final class InputPump: EventSource {
    package let chunks: AsyncStream<[UInt8]>
    private let continuation: AsyncStream<[UInt8]>.Continuation
    private let source: ConnectedSocket
    private let context: IOContext
    private let token = Mutex<WatchToken?>(nil)

    /// On the context's thread.
    package init(_ source: ConnectedSocket, context: IOContext) {
        self.source = source
        self.context = context
        (chunks, continuation) = AsyncStream.makeStream(of: [UInt8].self)
        // A plain file cannot be watched: it is always ready.
        let watch = try? context.watch(source.descriptor, for: .readable, self)
        token.withLock { $0 = watch }
        if watch == nil { context.post { self.readPlainFile() } }
    }

    package func ready(_ events: ReadyEvents) { _ = read() }

    private func readPlainFile() {
        while read() {}
    }

    /// - Returns: whether there may be more.
    private func read() -> Bool {
        let (outcome, bytes) = source.receive(atMost: 1 << 16)
        switch outcome {
        case .bytes:
            continuation.yield(bytes)
            return true
        case .wouldBlock: return false
        case .closed, .failed:
            stop()
            return false
        }
    }

    /// Ends the sequence. On the context's thread.
    package func stop() {
        let watch = token.withLock { token in
            defer { token = nil }
            return token
        }
        if let watch { context.unwatch(watch) }
        continuation.finish()
    }
}
