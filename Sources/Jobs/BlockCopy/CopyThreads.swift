package import IOCore
import StrataBase
import Synchronization

/// The threads that a copy is done on. Two where there are two processors: while one reads a piece the other writes one. More bring nothing, because a
/// file takes one write at a time.
package struct CopyThreads: Sendable {
    package let contexts: [IOContext]
    private let started: [IOContext]
    /// The calling thread, where it has become one of those that copy and nothing else.
    private let caller: IOContext?

    /// Below this a thread costs more than it brings, in bytes. Tests whose disks are small set it lower.
    package static var smallestShared: Int {
        get { leastBytes.load(ordering: .relaxed) }
        set { leastBytes.store(newValue, ordering: .relaxed) }
    }
    private static let leastBytes = Atomic<Int>(8 << 20)

    /// For a copy that has the calling thread, `context`, to itself: that one, and another where that makes it faster.
    /// - Parameter byteCount: how much there is to do.
    package init(_ context: IOContext, for byteCount: Int) {
        caller = context.isCurrent && !context.isForCopying ? context : nil
        caller?.isForCopying = true
        started = HostProcessors.count > 1 && byteCount >= Self.smallestShared ? Self.start(1) : []
        contexts = [context] + started
    }

    /// For a copy beside other work, which it must not hold up: threads of its own, unless there is little to do.
    package init(beside context: IOContext, for byteCount: Int) {
        caller = nil
        started = byteCount >= Self.smallestShared ? Self.start(min(2, HostProcessors.count)) : []
        contexts = started.isEmpty ? [context] : started
    }

    private static func start(_ count: Int) -> [IOContext] {
        var threads: [IOContext] = []
        // With fewer threads it only takes longer.
        do throws(BlockError) { for _ in 0..<count { threads.append(try IOContext.startThread(name: "copy", isForCopying: true)) } } catch {}
        return threads
    }

    /// To be called when all work on them is over, on the thread that they were made on.
    package func stop() {
        caller?.isForCopying = false
        for thread in started {
            thread.stop()
            thread.join()
        }
    }
}
