import BlockCopy
import BlockGraph
import CopyFilters
import JobCore
import StrataBase
import Synchronization

/// What the workers of a backup ask between pieces.
final class BackupWatch: CopyDelegate {
    private let job: Job
    private let filter: CopyBeforeWriteDriver
    private let failure = Mutex<CopyFailure?>(nil)
    /// Workers that have a piece or are about to get one.
    private let active = Atomic<Int>(0)

    init(_ job: Job, _ filter: CopyBeforeWriteDriver) {
        self.job = job
        self.filter = filter
    }

    /// The first failure since it was asked last.
    func takeFailure() -> CopyFailure? {
        failure.withLock { failure in
            defer { failure = nil }
            return failure
        }
    }

    /// No worker runs: one round is over, the next begins.
    func beginRound() { active.store(0, ordering: .relaxed) }

    func admit() async -> Bool {
        if job.mustStop || filter.snapshotError != nil { return false }
        // With a speed one worker is enough, and what it takes is known before more is taken.
        let others = active.add(1, ordering: .relaxed).oldValue
        if others == 0 || job.speed == 0 { return true }
        active.subtract(1, ordering: .relaxed)
        return false
    }

    func copied(_ tally: CopyTally) async {
        active.subtract(1, ordering: .relaxed)
        job.progress.add(tally.finished)
        job.charge(tally.moved)
    }

    func failed(_ failure: CopyFailure) async -> CopyFailureAction {
        active.subtract(1, ordering: .relaxed)
        self.failure.withLock { $0 = $0 ?? failure }
        return .stop
    }
}
