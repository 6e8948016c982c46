import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

// What users want of jobs. The words of refusals are QEMU's.

extension JobRegistry {
    private func check(_ verb: JobVerb, _ job: Job) throws(BlockError) {
        let status = job.status
        Trace.jobVerb(job: job.id, verb: verb.rawValue, status: status.rawValue)
        guard JobStateMachine.accepts(verb, in: status) else {
            throw BlockError(.invalidArgument, "Job '\(job.id)' in state '\(status.rawValue)' cannot accept command verb '\(verb.rawValue)'")
        }
    }

    package func pause(_ job: Job) throws(BlockError) {
        try check(.pause, job)
        if job.control.withLock({ $0.isPaused }) { throw BlockError(.invalidArgument, "Job is already paused") }
        job.control.update { $0.isPaused = true }
        job.isWanted.store(true, ordering: .releasing)
        job.wake()
    }

    package func resume(_ job: Job) throws(BlockError) {
        guard job.control.withLock({ $0.isPaused }) else { throw BlockError(.invalidArgument, "Can't resume a job that was not paused") }
        try check(.resume, job)
        letGo(job)
    }

    private func letGo(_ job: Job) {
        job.control.update { control in
            control.isPaused = false
            control.ioStatus = .ok
        }
        job.wake()
    }

    package func setSpeed(_ speed: Int, of job: Job) throws(BlockError) {
        try check(.setSpeed, job)
        if speed < 0 { throw BlockError(.invalidArgument, "Parameter 'speed' expects a non-negative value") }
        job.control.update { $0.rate.setSpeed(speed, now: MonotonicTime.now) }
        job.wake()
    }

    package func complete(_ job: Job) async throws(BlockError) {
        try check(.complete, job)
        if job.isEndRequested { throw BlockError(.invalidArgument, "The active block job '\(job.id)' cannot be completed") }
        try await job.driver.complete(job)
        job.wake()
    }

    package func change(_ options: BlockJobChangeOptions, of job: Job) async throws(BlockError) {
        try check(.change, job)
        try await job.driver.change(options, of: job)
    }

    /// - Parameter isForced: also a job that is ready or held fails.
    package func cancel(_ job: Job, isForced: Bool) async throws(BlockError) {
        if !isForced, job.control.withLock({ $0.isPaused }) {
            throw BlockError(.invalidArgument, "The block job for device '\(job.id)' is currently paused")
        }
        try check(.cancel, job)
        await endEarly(job, isForced: isForced)
    }

    /// The same without asking whether it is allowed.
    func endEarly(_ job: Job, isForced: Bool) async {
        switch job.status {
        case .waiting where !job.transaction.isConcluding, .pending where !job.transaction.isConcluding:
            fail(job.transaction)
            await concludeIfOver(job.transaction)
        case .created, .running, .paused, .ready, .standby:
            let isReal = job.driver.cancels(job, isForced: isForced)
            job.control.update { control in
                if isReal || control.cancellation == .none { control.cancellation = isReal ? .real : .soft }
            }
            job.isWanted.store(true, ordering: .releasing)
            letGo(job)
        default: break
        }
    }

    /// Puts into force what the jobs of the transaction came to. They are over when this returns.
    package func finalize(_ job: Job) async throws(BlockError) {
        try check(.finalize, job)
        if job.transaction.isConcluding { return await job.waitUntilConcluded() }
        job.transaction.isConcluding = true
        await finalize(job.transaction)
    }

    package func dismiss(_ job: Job) throws(BlockError) {
        try check(.dismiss, job)
        forget(job)
    }

    /// Ends all jobs, the newest first, and forgets them. No job can be made any more; those that are being made are given up.
    package func cancelAll() async {
        isEnding = true
        while let job = jobs.last {
            await endEarly(job, isForced: true)
            await job.waitUntilConcluded()
            if job.status == .concluded { forget(job) }
        }
        await making.waitUntilIdle()
    }
}
