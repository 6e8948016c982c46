import Synchronization

/// Says which of a job's workers may begin a piece. Any thread.
///
/// With a speed it is one at a time: so what a piece takes is accounted before the next is begun, and a slow job does not run ahead by as many pieces as it
/// has workers.
package final class WorkerAdmission: Sendable {
    private let job: Job
    /// Workers that have a piece or are about to get one.
    private let active = Atomic<Int>(0)

    package init(_ job: Job) { self.job = job }

    /// No worker runs: one round is over, the next begins.
    package func beginRound() { active.store(0, ordering: .relaxed) }

    /// - Returns: whether to go on. If not, the worker ends for this round; if so, it calls `leave` when it is through with its piece.
    package func enter() -> Bool {
        if job.mustStop { return false }
        let others = active.add(1, ordering: .relaxed).oldValue
        if others == 0 || job.speed == 0 { return true }
        active.subtract(1, ordering: .relaxed)
        return false
    }

    package func leave() { active.subtract(1, ordering: .relaxed) }
}
