import BlockGraph
import IOCore
import JobCore
import QAPIRuntime
import StorageSchema
import StrataBase
import Synchronization

/// A registry on a context of its own, with a log of what it tells.
final class JobFixture: Sendable {
    let context: IOContext
    let graph: BlockGraph
    let registry: JobRegistry
    private let log = AsyncCondition<[String]>([])

    init(_ drivers: DriverRegistry = DriverRegistry([])) throws {
        context = try IOContext.startThread(name: "jobs test")
        graph = BlockGraph(context: context, drivers: drivers)
        let log = log
        registry = JobRegistry(graph: graph) { event in
            let data = event.json
            let subject = data["id"]?.string ?? data["device"]?.string ?? ""
            let rest = data["status"]?.string ?? data["error"]?.string ?? data["action"]?.string ?? ""
            log.update { $0.append("\(subject) \(type(of: event).eventName)\(rest.isEmpty ? "" : " " + rest)") }
        }
    }

    /// What was told so far: `ID EVENT DETAIL`, statuses as `ID STATUS`.
    var told: [String] { log.withLock { $0 }.map { $0.replacing("JOB_STATUS_CHANGE ", with: "") } }

    func wait(for line: String) async { await log.wait { $0.contains { $0.replacing("JOB_STATUS_CHANGE ", with: "") == line } ? () : nil } }

    func stop() async throws {
        await registry.cancelAll()
        let graph = graph
        let outcome = await Task(executorPreference: context) { () async -> Result<Void, BlockError> in
            do throws(BlockError) { return .success(try await graph.closeAll()) } catch { return .failure(error) }
        }.value
        context.stop()
        context.join()
        try outcome.get()
    }

    func start(
        _ id: String, _ work: Puppet, in transaction: JobTransaction? = nil, autoFinalize: Bool = true, autoDismiss: Bool = true, speed: Int = 0,
        isBlockJob: Bool = true
    ) async throws(BlockError) -> Job {
        var settings = JobSettings(id: id, type: .backup)
        settings.finalizesAutomatically = autoFinalize
        settings.dismissesAutomatically = autoDismiss
        settings.speed = speed
        settings.isBlockJob = isBlockJob
        guard let transaction else { return try await registry.start(settings) { _ in work } }
        return try await registry.create(settings, in: transaction) { _ in work }
    }
}

/// A job that does what the test says, and writes down what is asked of it.
final class Puppet: JobDriver {
    static var type: JobType { .backup }

    enum Order: Sendable, Hashable { case work, becomeReady, succeed, fail }
    private let order: AsyncCondition<Order>
    private let calls = AsyncCondition<[String]>([])
    let prepareFails: Bool
    let endsSoftlyWhenReady: Bool
    /// Held until the test lets it go.
    let abortGate: AsyncCondition<Bool>

    init(_ order: Order = .work, prepareFails: Bool = false, endsSoftlyWhenReady: Bool = false, holdsAbort: Bool = false) {
        self.order = AsyncCondition(order)
        self.prepareFails = prepareFails
        self.endsSoftlyWhenReady = endsSoftlyWhenReady
        abortGate = AsyncCondition(!holdsAbort)
    }

    func set(_ next: Order, _ job: Job) {
        order.update { $0 = next }
        job.wake()
    }

    var called: [String] { calls.withLock { $0 } }
    func wait(for call: String) async { await calls.wait { $0.contains(call) ? () : nil } }
    private func note(_ call: String) { calls.update { $0.append(call) } }

    func run(_ job: Job) async throws(BlockError) {
        while true {
            let ticket = job.wakeUps
            try await job.pausePoint()
            switch order.withLock({ $0 }) {
            case .work: job.progress.add(1)
            case .becomeReady: if !job.isReady { job.becomeReady() }
            case .succeed: return
            case .fail: throw BlockError(.io, "the puppet was told to fail")
            }
            if job.isEndRequested, !job.isCancelled { return }
            note("round")
            await job.sleep(for: nil, since: ticket)
        }
    }

    func prepare(_ job: Job) async throws(BlockError) {
        note("prepare")
        if prepareFails { throw BlockError(.noSpace, "the puppet cannot prepare") }
    }
    func commit(_ job: Job) async { note("commit") }
    func abort(_ job: Job) async {
        note("abort")
        await abortGate.wait { $0 ? () : nil }
    }
    func clean(_ job: Job) async { note("clean") }
    func complete(_ job: Job) async throws(BlockError) { set(.succeed, job) }
    func cancels(_ job: Job, isForced: Bool) -> Bool { !(endsSoftlyWhenReady && job.isReady && !isForced) }
}
