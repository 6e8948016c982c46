import Synchronization

/// Tasks that wait for a condition which is guarded by a `Mutex` elsewhere.
///
/// The pattern: under the mutex decide that the condition does not hold and call `enqueue`, which registers the task before the mutex is
/// released, so that no wake-up is lost. `wakeAll` is called after the condition changed; the woken look again.
@safe package struct AsyncWaitQueue: ~Copyable {
    private var waiters: [UnsafeContinuation<Void, Never>] = unsafe []

    package init() {}

    package var isEmpty: Bool { unsafe waiters.isEmpty }

    /// Registers a task that is about to suspend.
    package mutating func enqueue(_ continuation: UnsafeContinuation<Void, Never>) {
        unsafe waiters.append(continuation)
    }

    /// Removes everybody; resume them after the mutex is released.
    package mutating func takeAll() -> Waiters {
        let taken = unsafe Waiters(list: waiters)
        unsafe waiters = []
        return taken
    }

    /// Removes the longest waiter.
    package mutating func takeFirst() -> Waiters {
        if unsafe waiters.isEmpty { return unsafe Waiters(list: []) }
        return unsafe Waiters(list: [waiters.removeFirst()])
    }

    /// Tasks taken out of a queue. Each must be resumed exactly once.
    @safe
    package struct Waiters: Sendable {
        fileprivate let list: [UnsafeContinuation<Void, Never>]
        package func resume() { for unsafe continuation in unsafe list { unsafe continuation.resume() } }
    }
}
