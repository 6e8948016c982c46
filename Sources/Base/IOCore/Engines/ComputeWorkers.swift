import Synchronization

/// Work for processors on the worker threads of the process (`BlockingPool`): compression and ciphers.
///
/// Not more of it runs at once than there are processors: more would only take the caches from each other.
package enum ComputeWorkers {
    private struct State {
        /// What is taken leaves nil, so that its buffers go.
        var waiting: [(@Sendable () -> Void)?] = []
        /// Index of the next entry.
        var next = 0
        var running = 0
    }

    private static let state = Mutex(State())
    private static let limit = HostProcessors.count

    /// Runs `body` on a worker thread and suspends until it is over.
    package static func run<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
        unsafe await withUnsafeContinuation { (continuation: UnsafeContinuation<Result, Never>) in
            let starts = state.withLock { state in
                state.waiting.append { unsafe continuation.resume(returning: body()) }
                if state.running >= limit { return false }
                state.running += 1
                return true
            }
            if starts { BlockingPool.submit { work() } }
        }
    }

    private static func work() {
        while true {
            let work = state.withLock { state -> (@Sendable () -> Void)? in
                guard state.next < state.waiting.count else {
                    state.running -= 1
                    return nil
                }
                let work = state.waiting[state.next]
                state.waiting[state.next] = nil
                state.next += 1
                // Also when the queue never empties it does not grow for ever.
                if state.next == state.waiting.count || state.next > 256 {
                    state.waiting.removeFirst(state.next)
                    state.next = 0
                }
                return work
            }
            guard let work else { return }
            work()
        }
    }
}
