import BlockGraph
import ChainJobs
import JobCore
package import StorageSchema
import StrataBase

extension StorageService {
    /// Starts copying what an image's backing files have into the image.
    package func blockStream(_ arguments: BlockStreamArguments) async throws {
        try checkNotShuttingDown()
        _ = try await nodeForJob(arguments.device)
        var options = StreamJob.Options(device: arguments.device)
        options.base = arguments.base
        options.baseNode = arguments.baseNode
        options.bottom = arguments.bottom
        options.backingFile = arguments.backingFile
        options.masksProtocol = arguments.backingMaskProtocol ?? false
        options.onError = arguments.onError ?? .report
        options.filterNodeName = arguments.filterNodeName
        let settings = await jobSettings(
            .stream, id: arguments.jobId, speed: arguments.speed, finalizes: arguments.autoFinalize, dismisses: arguments.autoDismiss, on: arguments.device)
        let (graph, final) = (graph, options)
        try await jobs.start(settings) { job async throws(BlockError) in try await StreamJob.make(final, job, in: graph) }
    }
}
