import Synchronization

/// A value under a lock, and tasks that wait until it satisfies a condition of theirs.
///
/// The lock is held for assignments only and never across a suspension.
package final class AsyncCondition<State: Sendable>: Sendable {
    private struct Contents: ~Copyable {
        var state: State
        var waiters = AsyncWaitQueue()
    }

    private let contents: Mutex<Contents>

    package init(_ state: State) { contents = Mutex(Contents(state: state)) }

    /// Looks at the value, or changes it in a way that no waiter cares about.
    package func withLock<Result: Sendable>(_ body: (inout State) -> Result) -> Result {
        contents.withLock { body(&$0.state) }
    }

    /// Changes the value and lets every waiter look again.
    @discardableResult
    package func update<Result: Sendable>(_ body: (inout State) -> Result) -> Result {
        let (result, waiters) = contents.withLock { contents in
            let result = body(&contents.state)
            return (result, contents.waiters.takeAll())
        }
        waiters.resume()
        return result
    }

    /// Suspends until `attempt` returns something. It is called under the lock, now and after every `update`, and may change the value.
    package func wait<Result: Sendable>(until attempt: (inout State) -> Result?) async -> Result {
        while true {
            if let result = contents.withLock({ attempt(&$0.state) }) { return result }
            var early: Result?
            unsafe await withUnsafeContinuation { continuation in
                // Once more, together with registering: an update in between would otherwise wake nobody.
                early = contents.withLock { contents in
                    if let result = attempt(&contents.state) { return result }
                    unsafe contents.waiters.enqueue(continuation)
                    return nil
                }
                if early != nil { unsafe continuation.resume() }
            }
            if let early { return early }
        }
    }
}
