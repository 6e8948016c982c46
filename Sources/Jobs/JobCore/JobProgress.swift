import Synchronization

/// How far a job has come, in a unit of its own; for copying jobs it is bytes. Any thread.
package final class JobProgress: Sendable {
    private let state = Mutex((done: 0, remaining: 0))

    init() {}

    package var current: Int { state.withLock { $0.done } }
    /// What there is to do altogether, as far as is known now.
    package var total: Int { state.withLock { $0.done + $0.remaining } }

    /// That much is done, of what remained.
    package func add(_ count: Int) {
        state.withLock { state in
            state.done += count
            state.remaining = max(0, state.remaining - count)
        }
    }

    /// That much has been done which nobody knew of before: the total grows with it.
    package func addUnforeseen(_ count: Int) { state.withLock { $0.done += count } }

    package func setRemaining(_ count: Int) { state.withLock { $0.remaining = count } }
    package func increaseRemaining(by count: Int) { state.withLock { $0.remaining += count } }

    /// Nothing has been done yet of a total.
    package func restart(total: Int) { state.withLock { $0 = (0, total) } }
}
