import BlockGraph
import ChainJobs
import JobCore
package import StorageSchema
import StrataBase

extension StorageService {
    /// Starts to keep a second disk like the first.
    package func blockdevMirror(_ arguments: BlockdevMirrorArguments) async throws {
        try checkNotShuttingDown()
        for name in [arguments.device, arguments.target] where await graph.node(named: name) == nil {
            throw BlockError(.notFound, "Cannot find device='\(name)' nor node-name='\(name)'")
        }
        try await graph.change { change throws(BlockError) in try change.checkIsRoot(arguments.device) }
        if arguments.sync == .incremental || arguments.sync == .bitmap {
            throw BlockError(.invalidArgument, "Sync mode '\(arguments.sync.rawValue)' not supported")
        }
        if let granularity = arguments.granularity, granularity != 0 {
            guard (512...(64 << 20)).contains(granularity) else {
                throw BlockError(.invalidArgument, "Parameter 'granularity' expects a value in range [512B, 64MB]")
            }
            guard granularity.nonzeroBitCount == 1 else { throw BlockError(.invalidArgument, "Parameter 'granularity' expects a power of 2") }
        }
        if let size = arguments.bufSize, size < 0 { throw BlockError(.invalidArgument, "Invalid parameter 'buf-size'") }
        if arguments.device == arguments.target { throw BlockError(.invalidArgument, "Can't mirror node into itself") }
        var options = MirrorJob.Options(source: arguments.device, target: arguments.target)
        options.sync = arguments.sync
        options.replaces = arguments.replaces
        options.granularity = arguments.granularity.flatMap { $0 == 0 ? nil : Int($0) }
        options.isActive = arguments.copyMode == .writeBlocking
        options.onSourceError = arguments.onSourceError ?? .report
        options.onTargetError = arguments.onTargetError ?? .report
        options.filterNodeName = arguments.filterNodeName
        var settings = JobSettings(id: arguments.jobId ?? "", type: .mirror)
        settings.finalizesAutomatically = arguments.autoFinalize ?? true
        settings.dismissesAutomatically = arguments.autoDismiss ?? true
        settings.speed = arguments.speed ?? 0
        settings.context = await graph.context(ofNodeNamed: arguments.device)
        let (graph, final) = (graph, options)
        try await jobs.start(settings) { job async throws(BlockError) in try await MirrorJob.make(final, job, in: graph) }
    }
}
