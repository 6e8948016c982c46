import BackupJobs
import BlockGraph
import JobCore
package import StorageSchema
import StrataBase

extension StorageService {
    /// Starts to copy a disk as it is now, while it may be written to.
    package func blockdevBackup(_ arguments: BlockdevBackup) async throws {
        try checkNotShuttingDown()
        try await run([BackupStep(self, arguments, in: JobTransaction())])
    }
}

/// Makes the job of a backup; undone by taking the job back before it starts. What the disk holds while the step is prepared is what is copied.
final class BackupStep: TransactionStep {
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
        for name in [arguments.device, arguments.target] { _ = try await service.nodeForJob(name) }
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
        try await BackupJob.check(options, in: graph)
        let settings = await service.jobSettings(
            .backup, id: arguments.jobId, speed: arguments.speed, finalizes: arguments.autoFinalize, dismisses: arguments.autoDismiss, on: arguments.device)
        let final = options
        job = try await service.jobs.create(settings, in: transaction) { job async throws(BlockError) in try await BackupJob.make(final, job, in: graph) }
    }

    func commit() async { if let job { await service.jobs.start(job) } }

    func abort() async { if let job { await service.jobs.discard(job) } }
}
