import BlockCopy
import BlockGraph
import IOCore
import JobCore
import StorageSchema
import StrataBase
import Synchronization

/// Runs the copy engine for a job: its workers keep to the job's speed, stop when it is held, and the job's own task asks its policies about errors.
final class JobCopying: CopyDelegate {
    private let job: Job
    private let onReadError: BlockdevOnError
    private let onWriteError: BlockdevOnError?
    private let admission: WorkerAdmission
    private let failure = Mutex<CopyFailure?>(nil)

    /// How long a job rests after a failure that is ignored.
    private static let restAfterFailure = Duration.milliseconds(20)

    /// - Parameter onWriteError: nil for a job that reads and nothing else: then that is what users are told has failed.
    init(_ job: Job, onReadError: BlockdevOnError, onWriteError: BlockdevOnError?) {
        self.job = job
        self.onReadError = onReadError
        self.onWriteError = onWriteError
        admission = WorkerAdmission(job)
    }

    /// One round: until there is nothing left to do, or the job's own task should look around.
    /// - Returns: a failure that is to be ignored. What it concerns is handed out again in the next round.
    /// - Throws: the failure of the job.
    @discardableResult
    func round(_ copier: BlockCopier, on contexts: [IOContext]) async throws(BlockError) -> CopyFailure? {
        admission.beginRound()
        do throws(BlockError) {
            try await copier.run(on: contexts)
            return nil
        } catch {
            // One failure at a time: workers that fail end the round, and those behind the first try again.
            guard let failure = failure.withLock({ $0.take() }) else { throw job.reported(error) }
            let ticket = job.wakeUps
            guard try settle(failure) == .ignore else { return nil }
            // A side that always fails is not to be asked all the time.
            await job.sleep(for: Self.restAfterFailure, since: ticket)
            return failure
        }
    }

    /// Asks the policy.
    /// - Throws: the failure of the job, if it is one.
    @discardableResult
    func settle(_ failure: CopyFailure) throws(BlockError) -> BlockErrorAction {
        var (operation, policy) = (IoOperationType.read, onReadError)
        if !failure.isRead, let onWriteError { (operation, policy) = (.write, onWriteError) }
        let action = job.action(for: failure.error, on: operation, policy: policy)
        if action == .report { throw job.reported(failure.error) }
        return action
    }

    func admit() async -> Bool { admission.enter() }

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
