import BlockCopy
import BlockGraph
import JobCore
import StorageSchema
import StrataBase
import Synchronization

/// Runs the copy engine for a job: its workers keep to the job's speed, stop when it is held, and ask its policies about errors.
final class JobCopying: CopyDelegate {
    private let job: Job
    private let onReadError: BlockdevOnError
    private let onWriteError: BlockdevOnError
    private let hasStopped = Atomic<Bool>(false)

    init(_ job: Job, onReadError: BlockdevOnError, onWriteError: BlockdevOnError) {
        self.job = job
        self.onReadError = onReadError
        self.onWriteError = onWriteError
    }

    /// One round: until there is nothing left to do, or the job's own task should look around.
    /// - Throws: the failure of the job.
    func round(_ copier: BlockCopier) async throws(BlockError) {
        do throws(BlockError) { try await copier.run(on: [job.context]) } catch { throw job.reported(error) }
    }

    func admit() async -> Bool { !job.mustStop }

    func copied(_ tally: CopyTally) async {
        job.progress.add(tally.finished)
        job.charge(tally.moved)
    }

    func failed(_ failure: CopyFailure) async -> CopyFailureAction {
        let action = job.action(for: failure.error, on: failure.isRead ? .read : .write, policy: failure.isRead ? onReadError : onWriteError)
        return action == .report ? .stop : .retry
    }
}
