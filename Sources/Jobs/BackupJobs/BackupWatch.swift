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
    private let admission: WorkerAdmission
    private let failure = Mutex<CopyFailure?>(nil)

    init(_ job: Job, _ filter: CopyBeforeWriteDriver) {
        self.job = job
        self.filter = filter
        admission = WorkerAdmission(job)
    }

    /// The first failure since it was asked last.
    func takeFailure() -> CopyFailure? {
        failure.withLock { failure in
            defer { failure = nil }
            return failure
        }
    }

    /// No worker runs: one round is over, the next begins.
    func beginRound() { admission.beginRound() }

    func admit() async -> Bool { filter.snapshotError == nil && admission.enter() }

    func copied(_ tally: CopyTally) async {
        job.progress.add(tally.finished)
        job.charge(tally.moved)
        admission.leave()
    }

    func failed(_ failure: CopyFailure) async -> CopyFailureAction {
        admission.leave()
        self.failure.withLock { $0 = $0 ?? failure }
        return .stop
    }
}
