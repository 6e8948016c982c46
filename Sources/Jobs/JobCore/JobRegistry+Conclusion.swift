import IOCore
import StorageSchema
import StrataBase
import Synchronization

// How jobs end: each waits for the others of its transaction; then all put their work into force, or all undo it.

extension JobRegistry {
    /// `run` is over.
    func finished(_ job: Job, _ failure: BlockError?) async {
        let isCancelled = job.control.withLock { control in
            control.isRunning = false
            control.isBusy = false
            control.isPaused = false
            return control.cancellation == .real
        }
        // Who was cancelled while the last request succeeded is cancelled all the same.
        let failure = isCancelled ? job.cancellation : failure
        Trace.jobRunEnd(job: job.id, failure: failure?.description ?? "")
        if let failure {
            job.move(to: .aborting(failure))
            fail(job.transaction)
        } else if job.transaction.hasFailed {
            job.move(to: .aborting(job.cancellation))
        } else {
            job.move(to: .waiting)
        }
        await concludeIfOver(job.transaction)
    }

    /// Nothing will come of the transaction: jobs that still work are ended.
    func fail(_ transaction: JobTransaction) {
        transaction.hasFailed = true
        for job in transaction.jobs where job.control.withLock({ $0.isRunning }) {
            job.control.update { control in
                control.cancellation = .real
                control.isPaused = false
            }
            job.isWanted.store(true, ordering: .releasing)
            job.wake()
        }
    }

    /// Goes on when no job of the transaction works any more.
    func concludeIfOver(_ transaction: JobTransaction) async {
        guard !transaction.isConcluding, !transaction.jobs.contains(where: { [.created, .running, .paused, .ready, .standby].contains($0.status) }) else {
            return
        }
        if transaction.hasFailed {
            transaction.isConcluding = true
            return await abort(transaction)
        }
        for job in transaction.jobs {
            job.move(to: .pending)
            if job.isBlockJob, !job.finalizesAutomatically { job.send(BlockJobPendingEvent(type: job.type, id: job.id)) }
        }
        guard transaction.jobs.allSatisfy(\.finalizesAutomatically) else { return }
        transaction.isConcluding = true
        await finalize(transaction)
    }

    /// Whoever calls this has set `isConcluding` in the same breath as he has found it unset: only one may.
    func finalize(_ transaction: JobTransaction) async {
        for job in transaction.jobs {
            do throws(BlockError) { try await job.driver.prepare(job) } catch {
                job.move(to: .aborting(error))
                transaction.hasFailed = true
                return await abort(transaction)
            }
        }
        for job in transaction.jobs {
            await job.driver.commit(job)
            await conclude(job, nil)
        }
    }

    private func abort(_ transaction: JobTransaction) async {
        for job in transaction.jobs where job.status != .aborting { job.move(to: .aborting(job.cancellation)) }
        for job in transaction.jobs {
            await job.driver.abort(job)
            await conclude(job, job.state.failure)
        }
    }

    private func conclude(_ job: Job, _ failure: BlockError?) async {
        await job.driver.clean(job)
        job.transaction.jobs.removeAll { $0 === job }
        if job.isBlockJob {
            let (length, offset, speed) = (job.progress.total, job.progress.current, job.speed)
            if failure?.code == .cancelled {
                job.send(BlockJobCancelledEvent(type: job.type, device: job.id, len: length, offset: offset, speed: speed))
            } else {
                job.send(BlockJobCompletedEvent(type: job.type, device: job.id, len: length, offset: offset, speed: speed, error: failure?.description))
            }
        }
        job.move(to: .concluded(failure))
        if job.dismissesAutomatically { forget(job) }
    }
}
