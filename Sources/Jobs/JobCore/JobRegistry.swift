package import BlockGraph
package import IOCore
package import QAPIRuntime
package import StorageSchema
package import StrataBase
import Synchronization

/// The jobs of one graph: brings them into being, passes on what users want of them, and sees them through their end.
package actor JobRegistry: ContextActor {
    package nonisolated let context: IOContext
    package nonisolated let graph: BlockGraph
    private nonisolated let send: @Sendable (any QAPIEvent) -> Void
    /// The oldest first.
    private(set) var jobs: [Job] = []
    /// Ids of jobs that are being made.
    private var reserved: Set<String> = []
    /// How many jobs are being made.
    let making = InFlightCounter()
    /// Everything is being ended: a job that comes into being now would be overlooked.
    package internal(set) var isEnding = false

    /// - Parameter onEvent: told of events, on any thread.
    package init(graph: BlockGraph, onEvent: @escaping @Sendable (any QAPIEvent) -> Void = { _ in }) {
        context = graph.context
        self.graph = graph
        send = onEvent
    }

    // MARK: Making

    /// Makes a job and starts it.
    /// - Parameters:
    ///   - transaction: shared by jobs that belong together. Such jobs are created first, all of them, and started then.
    ///   - make: opens what the job works on, on the graph's context. If it throws there is no job.
    @discardableResult
    package func start(_ settings: JobSettings, make: @Sendable (Job) async throws(BlockError) -> any JobDriver) async throws(BlockError) -> Job {
        let job = try await create(settings, in: JobTransaction(), make: make)
        start(job)
        return job
    }

    /// Makes a job that does not work yet. Follow with `start` or `discard`.
    package func create(
        _ settings: JobSettings, in transaction: JobTransaction, make: @Sendable (Job) async throws(BlockError) -> any JobDriver
    ) async throws(BlockError) -> Job {
        guard NodeNames.isWellFormed(settings.id) else { throw BlockError(.invalidArgument, "Invalid job ID '\(settings.id)'") }
        if reserved.contains(settings.id) || jobs.contains(where: { $0.id == settings.id }) {
            throw BlockError(.alreadyExists, "Job ID '\(settings.id)' already in use")
        }
        try refuseAtTheEnd()
        if settings.speed < 0 { throw BlockError(.invalidArgument, "Parameter 'speed' expects a non-negative value") }
        reserved.insert(settings.id)
        making.enter()
        defer {
            reserved.remove(settings.id)
            making.leave()
        }
        let job = Job(settings, context: context, transaction: transaction, send: send)
        let driver = try await make(job)
        do throws(BlockError) { try refuseAtTheEnd() } catch {
            await driver.abort(job)
            await driver.clean(job)
            throw error
        }
        job.work.withLock { $0 = driver }
        jobs.append(job)
        transaction.jobs.append(job)
        job.move(to: .created)
        return job
    }

    private func refuseAtTheEnd() throws(BlockError) {
        if isEnding { throw BlockError(.cancelled, "The storage daemon is shutting down") }
    }

    /// Lets a job begin that was created. One that was cancelled meanwhile, or whose transaction has failed before its turn came, ends at its first
    /// pause point.
    package func start(_ job: Job) {
        job.control.withLock { control in
            control.isRunning = true
            control.isBusy = true
            if job.transaction.hasFailed { control.cancellation = .real }
        }
        if job.transaction.hasFailed { job.isWanted.store(true, ordering: .releasing) }
        job.move(to: .running)
        job.context.spawn { [self] in
            var failure: BlockError?
            do throws(BlockError) { try await job.driver.run(job) } catch { failure = error }
            await finished(job, failure)
        }
    }

    /// Takes back a job that was created and not started, without a trace.
    package func discard(_ job: Job) async {
        await job.driver.abort(job)
        await job.driver.clean(job)
        job.transaction.jobs.removeAll { $0 === job }
        forget(job)
    }

    func forget(_ job: Job) {
        job.move(to: .null)
        jobs.removeAll { $0 === job }
    }

    // MARK: Asking

    /// A job of whatever kind; nil when there is none of that id.
    package func job(_ id: String) -> Job? { jobs.first { $0.id == id } }

    /// The newest first.
    package var infos: [JobInfo] {
        jobs.reversed().map { job in
            JobInfo(
                id: job.id, type: job.type, status: job.status, currentProgress: job.progress.current, totalProgress: job.progress.total,
                error: job.state.failure?.description)
        }
    }

    /// The newest first.
    package var blockJobInfos: [BlockJobInfo] {
        jobs.reversed().filter(\.isBlockJob).map { job in
            let control = job.control.withLock { $0 }
            return BlockJobInfo(
                job.driver.branch(job), device: job.id, len: job.progress.total, offset: job.progress.current, busy: control.isBusy,
                paused: control.isPaused, speed: control.rate.speed, ioStatus: control.ioStatus, ready: job.isReady, status: control.state.status,
                autoFinalize: job.finalizesAutomatically, autoDismiss: job.dismissesAutomatically, error: control.state.failure?.description)
        }
    }
}
