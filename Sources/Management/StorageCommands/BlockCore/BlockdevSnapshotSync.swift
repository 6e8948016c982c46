import BlockGraph
import IOCore
package import StorageSchema
import StrataBase

extension StorageService {
    /// Makes an overlay in a file, opens it and puts it on top of a node.
    package func blockdevSnapshotSync(_ arguments: BlockdevSnapshotSync) async throws {
        try checkNotShuttingDown()
        try await run([SnapshotSyncStep(self, arguments)])
    }

    /// Makes the overlay, opens it and puts it on top of the node.
    func makeOverlay(_ arguments: BlockdevSnapshotSync) async throws(BlockError) -> MadeOverlay {
        // There are no devices here, so only a node name can name anything.
        guard let name = arguments.nodeName, let node = await graph.node(named: name) else {
            throw BlockError(.notFound, "Cannot find device='\(arguments.device ?? "")' nor node-name='\(arguments.nodeName ?? "")'")
        }
        try await graph.snapshot.checkNotBlocked(.snapshot, on: name)
        guard let overlayName = arguments.snapshotNodeName else { throw BlockError(.invalidArgument, "New overlay node-name missing") }
        guard await graph.node(named: overlayName) == nil else { throw BlockError(.alreadyExists, "New overlay node-name already in use") }
        let format = arguments.format ?? "qcow2"
        guard let driver = BlockdevDriver(rawValue: format), graph.drivers.names.contains(format) else {
            throw BlockError(.invalidArgument, "Unknown file format '\(format)'")
        }
        guard driver == .qcow2 else { throw NewImage.takesNoBacking(format) }
        try NodeNames.check(overlayName)

        let file = arguments.snapshotFile
        let image = NewImage(graph: graph, path: file, format: driver, source: node)
        let isNew = arguments.mode == .existing ? false : try await image.create(over: node)
        let options = BlockdevOptions(
            .qcow2(BlockdevOptionsQcow2(file: .definition(.hostFile(file)), backing: .null)), nodeName: overlayName,
            discard: node.options.discardsUnmap ? .unmap : nil,
            cache: BlockdevCacheOptions(direct: node.options.bypassesCache, noFlush: node.options.ignoresFlushes), readOnly: node.isReadOnly)
        let taken = try await graph.takeSnapshot(of: name, overlay: overlayName) { change async throws(BlockError) in
            try await change.open(options, isMonitorOwned: false)
        }
        return MadeOverlay(taken: taken, newFile: isNew ? file : nil)
    }
}
