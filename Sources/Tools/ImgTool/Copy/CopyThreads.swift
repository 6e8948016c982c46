import IOCore
import StrataBase

/// The threads that a command reads and writes on: its own, and another where that makes it faster.
struct CopyThreads {
    let contexts: [IOContext]

    /// Below this a second thread costs more than it brings, in bytes.
    private static let smallestShared = 8 << 20

    /// - Parameter byteCount: how much there is to do.
    init(_ context: IOContext, for byteCount: Int) {
        var contexts = [context]
        if HostProcessors.count > 1, byteCount >= Self.smallestShared {
            // Without a second thread it only takes longer.
            do throws(BlockError) { contexts.append(try IOContext.startThread(name: "copy")) } catch {}
        }
        self.contexts = contexts
    }

    /// To be called when all work on them is over.
    func stop() {
        for context in contexts.dropFirst() {
            context.stop()
            context.join()
        }
    }
}
