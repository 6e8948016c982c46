import BlockGraph
import ChainJobs
import JobCore
package import StorageSchema
import StrataBase

extension StorageService {
    /// Starts to keep a second disk like the first.
    package func blockdevMirror(_ arguments: BlockdevMirrorArguments) async throws {
        try checkNotShuttingDown()
        _ = try await nodeForJob(arguments.device)
        try await graph.change { change throws(BlockError) in try change.checkIsRoot(arguments.device) }
        _ = try await nodeForJob(arguments.target)
        try await startMirror(arguments)
    }

    /// The same for every command that mirrors, when it knows its nodes.
    /// - Parameter adjust: adds what this command has no words for.
    func startMirror(
        _ arguments: BlockdevMirrorArguments, adjusting adjust: (inout MirrorJob.Options) -> Void = { _ in }
    ) async throws(BlockError) {
        if let granularity = arguments.granularity, granularity != 0 {
            guard (512...(64 << 20)).contains(granularity) else {
                throw BlockError(.invalidArgument, "Parameter 'granularity' expects a value in range [512B, 64MB]")
            }
            guard granularity.nonzeroBitCount == 1 else { throw BlockError(.invalidArgument, "Parameter 'granularity' expects a power of 2") }
        }
        var options = MirrorJob.Options(source: arguments.device, target: arguments.target)
        options.sync = arguments.sync
        options.replaces = arguments.replaces
        options.granularity = arguments.granularity.flatMap { $0 == 0 ? nil : Int($0) }
        options.isActive = arguments.copyMode == .writeBlocking
        options.onSourceError = arguments.onSourceError ?? .report
        options.onTargetError = arguments.onTargetError ?? .report
        options.filterNodeName = arguments.filterNodeName
        options.bufferSize = arguments.bufSize.flatMap { $0 == 0 ? nil : $0 }
        adjust(&options)
        try await MirrorJob.check(options, in: graph)
        let settings = await jobSettings(
            .mirror, id: arguments.jobId, speed: arguments.speed, finalizes: arguments.autoFinalize, dismisses: arguments.autoDismiss, on: arguments.device)
        let (graph, final) = (graph, options)
        try await jobs.start(settings) { job async throws(BlockError) in try await MirrorJob.make(final, job, in: graph) }
    }
}
