import BlockGraph
import ChainJobs
import JobCore
package import StorageSchema
import StrataBase

extension StorageService {
    /// Starts copying what an image's backing files have into the image.
    package func blockStream(_ arguments: BlockStreamArguments) async throws {
        try checkNotShuttingDown()
        guard await graph.node(named: arguments.device) != nil else {
            throw BlockError(.notFound, "Cannot find device='\(arguments.device)' nor node-name='\(arguments.device)'")
        }
        var options = StreamJob.Options(device: arguments.device)
        options.base = arguments.base
        options.baseNode = arguments.baseNode
        options.bottom = arguments.bottom
        options.backingFile = arguments.backingFile
        options.masksProtocol = arguments.backingMaskProtocol ?? false
        options.onError = arguments.onError ?? .report
        options.filterNodeName = arguments.filterNodeName
        var settings = JobSettings(id: arguments.jobId ?? "", type: .stream)
        settings.finalizesAutomatically = arguments.autoFinalize ?? true
        settings.dismissesAutomatically = arguments.autoDismiss ?? true
        settings.speed = arguments.speed ?? 0
        settings.context = await graph.context(ofNodeNamed: arguments.device)
        let (graph, final) = (graph, options)
        try await jobs.start(settings) { job async throws(BlockError) in try await StreamJob.make(final, job, in: graph) }
    }
}
