import Synchronization

/// Lets workers write in the order of their stripes, whichever finishes reading first.
final class WriteOrder: Sendable {
    private struct State: ~Copyable {
        /// The stripe whose turn it is.
        var current = 0
        var waiters: [Int: CheckedContinuation<Void, Never>] = [:]
        /// Stripes that ended before their turn, because there was nothing to write.
        var finished: Set<Int> = []
        var isAbandoned = false
    }

    private let state = Mutex(State())

    /// Waits until all stripes before `stripe` are done.
    func waitForTurn(of stripe: Int) async {
        await withCheckedContinuation { continuation in
            let mayGo = state.withLock { state in
                if state.current == stripe || state.isAbandoned { return true }
                state.waiters[stripe] = continuation
                return false
            }
            if mayGo { continuation.resume() }
        }
    }

    /// The stripe has nothing left to write. To be called exactly once for every stripe.
    func finish(_ stripe: Int) {
        let next = state.withLock { state -> CheckedContinuation<Void, Never>? in
            state.finished.insert(stripe)
            while state.finished.remove(state.current) != nil { state.current += 1 }
            return state.waiters.removeValue(forKey: state.current)
        }
        next?.resume()
    }

    /// Lets everybody go: something has failed and the order does not matter any more.
    func abandon() {
        let waiters = state.withLock { state -> [CheckedContinuation<Void, Never>] in
            state.isAbandoned = true
            let waiters = Array(state.waiters.values)
            state.waiters = [:]
            return waiters
        }
        for waiter in waiters { waiter.resume() }
    }
}
