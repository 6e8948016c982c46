import BlockGraph
import ChainJobs
import IOCore
package import StorageSchema
import StrataBase

extension StorageService {
    /// Starts to keep an image like a disk. The image is made or opened for this.
    package func driveMirror(_ arguments: DriveMirror) async throws {
        try checkNotShuttingDown()
        let source = try await nodeForJob(arguments.device)
        if arguments.replaces != nil, arguments.nodeName == nil {
            throw BlockError(.invalidArgument, "a node-name must be provided when replacing a named node of the graph")
        }
        try await graph.change { change throws(BlockError) in try change.checkIsRoot(arguments.device) }
        let request = DriveTarget.Request(
            command: "drive-mirror", name: arguments.target, format: arguments.format, mode: arguments.mode, nodeName: arguments.nodeName,
            sync: arguments.sync, unmaps: arguments.unmap ?? true)
        try await changes.withLock { () async throws(BlockError) in
            let target = try await DriveTarget.open(request, for: source, in: graph)
            let mirror = BlockdevMirrorArguments(
                jobId: arguments.jobId, device: arguments.device, target: target.node.name, replaces: arguments.replaces, sync: arguments.sync,
                speed: arguments.speed, granularity: arguments.granularity, bufSize: arguments.bufSize, onSourceError: arguments.onSourceError,
                onTargetError: arguments.onTargetError, copyMode: arguments.copyMode, autoFinalize: arguments.autoFinalize,
                autoDismiss: arguments.autoDismiss)
            do throws(BlockError) {
                try await startMirror(mirror) { options in
                    options.unmaps = request.unmaps
                    options.targetIsEmpty = arguments.mode != .existing && arguments.sync == .full
                    options.targetStandsOnSource = target.standsOnSource
                }
            } catch {
                await target.discard(in: graph)
                throw error
            }
            await target.leave(in: graph)
        }
    }
}
