import IOCore
import StrataBase
import Synchronization

/// Threads on which nothing runs until an export has a second client. One client has the control plane's thread; with several, one processor would
/// be the limit for all of them. They begin when they are first wanted, and there are as many as there are further processors.
final class SpareThreads: Sendable {
    private let contexts = Mutex<[IOContext]?>(nil)

    /// Any thread.
    func take() -> [IOContext] {
        contexts.withLock { contexts in
            if let contexts { return contexts }
            var started: [IOContext] = []
            // Where no thread can be had, the first one serves everybody.
            do throws(BlockError) { for number in 1..<HostProcessors.count { started.append(try IOContext.startThread(name: "export-\(number)")) } } catch {}
            contexts = started
            return started
        }
    }

    /// Ends them. Nothing runs there any more, and nobody asks for them again.
    func end() async {
        let ended = contexts.withLock { contexts in
            defer { contexts = [] }
            return contexts ?? []
        }
        for context in ended { context.stop() }
        await BlockingPool.run { for context in ended { context.join() } }
    }
}
