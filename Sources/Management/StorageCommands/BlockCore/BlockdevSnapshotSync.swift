import BlockGraph
import IOCore
import QCOW2
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
        guard driver == .qcow2 else { throw BlockError(.unsupported, "Backing file not supported for file format '\(format)'") }
        try NodeNames.check(overlayName)

        let file = arguments.snapshotFile
        let isNew = arguments.mode == .existing ? false : try await OverlayFile(graph: graph).create(file, over: node)
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

/// Makes the file of an overlay.
private struct OverlayFile {
    let graph: BlockGraph

    /// Makes an empty qcow2 image of the node's size that names the node's file as its backing file.
    /// - Returns: whether the file had to be made.
    func create(_ path: String, over node: BlockNode) async throws(BlockError) -> Bool {
        let backing = try await backingName(of: node, for: path)
        guard let format = BlockdevDriver(rawValue: node.formatName) else {
            throw BlockError(.unsupported, "A node of driver '\(node.formatName)' cannot be named as a backing file")
        }
        let options = BlockdevCreateOptionsQcow2(file: .reference(""), size: node.length.roundedUp(to: 512), backingFile: backing, backingFmt: format)
        return try await graph.withNewFile(path, holder: "the new overlay '\(path)'") { backend async throws(BlockError) in
            try await QCOW2Driver.create(options, in: backend)
        }
    }

    /// What to write into the overlay so that it is found again with the same data below: where the images of the chain do not say by themselves how
    /// they hang together, a whole description.
    /// - Throws: `.unsupported` when that is too long for a name.
    private func backingName(of node: BlockNode, for overlay: String) async throws(BlockError) -> String {
        let name = try await graph.withoutChanges { () async throws(BlockError) -> String in
            var names = NodeDescriptions()
            return names.filename(of: node)
        }
        if name == node.filename {
            // A relative name starts at the folder of the image that it is written into, which need not be ours.
            return overlay.contains("/") ? HostPath.absolute(name) : name
        }
        if name.hasPrefix("json:"), name.hasSuffix("...") {
            throw BlockError(
                .unsupported, "The chain below node '\(node.name)' takes too many words to be the name of a backing file",
                hint: "Write into its images what they are based on with change-backing-file, or make the overlay yourself and use blockdev-snapshot.")
        }
        return name
    }
}
