import BlockGraph
import ChainJobs
import JobCore
import QAPIRuntime
package import StorageSchema
import StrataBase

extension StorageService {
    /// Starts writing what images of a chain have into one below them.
    package func blockCommit(_ arguments: BlockCommitArguments) async throws {
        try checkNotShuttingDown()
        guard await graph.node(named: arguments.device) != nil else {
            throw QMPError("Device '\(arguments.device)' not found", class: .deviceNotFound)
        }
        let range = try await graph.change { change throws(BlockError) in try CommitRange(arguments, change) }
        let settings = await jobSettings(
            .commit, id: arguments.jobId, speed: arguments.speed, finalizes: arguments.autoFinalize, dismisses: arguments.autoDismiss, on: arguments.device)
        let graph = graph
        if range.isActive {
            var options = MirrorJob.Options(source: range.top, target: range.base)
            options.sync = .top
            options.isCommit = true
            options.onSourceError = arguments.onError ?? .report
            options.onTargetError = arguments.onError ?? .report
            options.filterNodeName = arguments.filterNodeName
            let final = options
            try await jobs.start(settings) { job async throws(BlockError) in try await MirrorJob.make(final, job, in: graph) }
        } else {
            var options = CommitJob.Options(top: range.top, base: range.base)
            options.backingFile = arguments.backingFile
            options.masksProtocol = arguments.backingMaskProtocol ?? false
            options.onError = arguments.onError ?? .report
            options.filterNodeName = arguments.filterNodeName
            let final = options
            try await jobs.start(settings) { job async throws(BlockError) in try await CommitJob.make(final, job, in: graph) }
        }
    }
}
