import Synchronization

/// A lock that may be held across `await`: for sequences that must not interleave although they suspend.
///
/// First come, first served: ownership is handed directly to the longest waiter, so that a newcomer never overtakes.
/// For plain assignments use `Mutex`, which never suspends.
package final class AsyncMutex: Sendable {
    @safe private struct State {
        var isLocked = false
        var waiters: [UnsafeContinuation<Void, Never>] = unsafe []
    }

    private let state = Mutex(State())

    package init() {}

    /// Runs `body` while holding the lock.
    package func withLock<Result, Failure>(_ body: () async throws(Failure) -> Result) async throws(Failure) -> Result {
        await lock()
        defer { unlock() }
        return try await body()
    }

    /// Takes the lock if nobody has it. The caller unlocks.
    package func tryLock() -> Bool {
        state.withLock { state in
            if state.isLocked { return false }
            state.isLocked = true
            return true
        }
    }

    /// Takes the lock, waiting for it if need be. The caller unlocks, on every path.
    package func lock() async {
        if tryLock() { return }
        unsafe await withUnsafeContinuation { continuation in
            let owned = state.withLock { state in
                if !state.isLocked {
                    state.isLocked = true
                    return true
                }
                unsafe state.waiters.append(continuation)
                return false
            }
            if owned { unsafe continuation.resume() }
        }
    }

    package func unlock() {
        let next: UnsafeContinuation<Void, Never>? = unsafe state.withLock { state in
            precondition(state.isLocked, "only the owner unlocks")
            if unsafe state.waiters.isEmpty {
                state.isLocked = false
                return nil
            }
            // Still locked: it now belongs to this waiter.
            return unsafe state.waiters.removeFirst()
        }
        unsafe next?.resume()
    }
}
