import BackupJobs
import BlockGraph
import JobCore
package import StorageSchema
import StrataBase

extension StorageService {
    /// Starts to copy a disk as it is now, while it may be written to.
    package func blockdevBackup(_ arguments: BlockdevBackup) async throws {
        try checkNotShuttingDown()
        let step = BackupStep(self, arguments, in: JobTransaction())
        let drain = await graph.beginDrain(of: step.nodesToDrain)
        let outcome: Result<Void, BlockError>
        do throws(BlockError) { outcome = .success(try await step.prepare()) } catch { outcome = .failure(error) }
        await graph.end(drain)
        try outcome.get()
        await step.commit()
    }
}

/// Makes the job of a backup; undone by taking the job back before it starts. What the disk holds while the step is prepared is what is copied.
final class BackupStep {
    private let service: StorageService
    private let arguments: BlockdevBackup
    private let transaction: JobTransaction
    private var job: Job?

    init(_ service: StorageService, _ arguments: BlockdevBackup, in transaction: JobTransaction) {
        self.service = service
        self.arguments = arguments
        self.transaction = transaction
    }

    var nodesToDrain: Set<String> { [arguments.device] }

    func prepare() async throws(BlockError) {
        let graph = service.graph
        for name in [arguments.device, arguments.target] where await graph.node(named: name) == nil {
            throw BlockError(.notFound, "Cannot find device='\(name)' nor node-name='\(name)'")
        }
        var options = BackupOptions(source: arguments.device, target: arguments.target, sync: arguments.sync)
        options.bitmap = arguments.bitmap
        options.bitmapMode = arguments.bitmapMode
        options.compresses = arguments.compress ?? false
        options.onSourceError = arguments.onSourceError ?? .report
        options.onTargetError = arguments.onTargetError ?? .report
        options.filterNodeName = arguments.filterNodeName
        options.discardsSource = arguments.discardSource ?? false
        if let perf = arguments.xPerf {
            options.usesCopyRange = perf.useCopyRange ?? false
            options.workers = perf.maxWorkers ?? 64
            options.longestPiece = perf.maxChunk
            options.minClusterSize = perf.minClusterSize
        }
        try options.settle()
        var settings = JobSettings(id: arguments.jobId ?? "", type: .backup)
        settings.finalizesAutomatically = arguments.autoFinalize ?? true
        settings.dismissesAutomatically = arguments.autoDismiss ?? true
        settings.speed = arguments.speed ?? 0
        settings.context = await graph.context(ofNodeNamed: arguments.device)
        let final = options
        job = try await service.jobs.create(settings, in: transaction) { job async throws(BlockError) in try await BackupJob.make(final, job, in: graph) }
    }

    func commit() async { if let job { await service.jobs.start(job) } }

    func abort() async { if let job { await service.jobs.discard(job) } }
}
