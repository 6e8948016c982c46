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

    func admit() async -> Bool { !job.mustStop && filter.snapshotError == nil }

    func copied(_ tally: CopyTally) async {
        job.progress.add(tally.finished)
        job.charge(tally.moved)
    }

    func failed(_ failure: CopyFailure) async -> CopyFailureAction {
        self.failure.withLock { $0 = $0 ?? failure }
        return .stop
    }
}
