import Synchronization

/// How many operations are under way, with a way to wait until there are none. `enter` and `leave` cost one atomic addition each.
package final class InFlightCounter: Sendable {
    private let count = Atomic<Int>(0)
    private let waiters = Mutex(AsyncWaitQueue())

    package init() {}

    package var current: Int { count.load(ordering: .sequentiallyConsistent) }

    package func enter() { count.add(1, ordering: .sequentiallyConsistent) }

    package func leave() {
        let (_, left) = count.subtract(1, ordering: .sequentiallyConsistent)
        if left == 0 { waiters.withLock { $0.takeAll() }.resume() }
    }

    /// Waits until the count is zero at some moment. Whoever wants it to stay zero keeps newcomers out first.
    package func waitUntilIdle() async {
        while current != 0 {
            unsafe await withUnsafeContinuation { continuation in
                let isIdle = waiters.withLock { queue in
                    // Looked at again under the lock: `leave` takes the lock after its subtraction, so one of the two sees the other.
                    if current == 0 { return true }
                    unsafe queue.enqueue(continuation)
                    return false
                }
                if isIdle { unsafe continuation.resume() }
            }
        }
    }
}
