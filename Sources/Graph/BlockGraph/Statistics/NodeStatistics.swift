import StrataBase
import Synchronization

/// What is counted at a node, whoever its users are. Any thread.
package final class NodeStatistics: Sendable {
    private let highestOffset = Atomic<Int>(0)
    private let discardsDone = Atomic<Int>(0)
    private let discardsFailed = Atomic<Int>(0)
    private let discardedBytes = Atomic<Int>(0)

    /// The end of the furthest write so far, in bytes.
    package var highestWrittenOffset: Int { highestOffset.load(ordering: .relaxed) }

    @inline(__always)
    func wrote(upTo end: Int) {
        // Nearly every write lies below one that came before: a load and a comparison.
        if end > highestOffset.load(ordering: .relaxed) { highestOffset.max(end, ordering: .relaxed) }
    }

    /// Discards that the driver was asked for.
    package var discards: (done: Int, failed: Int, byteCount: Int) {
        (discardsDone.load(ordering: .relaxed), discardsFailed.load(ordering: .relaxed), discardedBytes.load(ordering: .relaxed))
    }

    func discarded(byteCount: Int) {
        discardsDone.add(1, ordering: .relaxed)
        discardedBytes.add(byteCount, ordering: .relaxed)
    }

    func failedToDiscard() { discardsFailed.add(1, ordering: .relaxed) }
}
