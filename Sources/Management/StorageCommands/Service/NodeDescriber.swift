import BasicDrivers
package import BlockGraph
package import StorageSchema
package import StrataBase

/// Turns open nodes into what queries answer.
package enum NodeDescriber {
    /// Longer chains are described only flat: clients' parsers have limits, and every image would describe all of those below it once more.
    private static let longestDescribedChain = 400

    /// What `query-named-block-nodes` says about a node.
    /// - Parameters:
    ///   - followsBacking: whether to describe the backing files too.
    ///   - names: of the nodes, made once for all of them.
    package static func deviceInfo(
        _ node: BlockNode, followsBacking: Bool, _ names: inout NodeDescriptions
    ) async throws(BlockError) -> BlockDeviceInfo {
        let chain = followsBacking ? backingChain(of: node) : [node]
        guard chain.count <= longestDescribedChain else {
            throw BlockError(
                .tooLarge, "Node '\(node.name)' has a chain of more than \(longestDescribedChain) images: ask with 'flat': true")
        }
        // From the bottom up: each description goes into the one above it, without recursion however long the chain is.
        var image = try await imageInfo(chain[chain.count - 1], &names)
        for layer in chain.dropLast().reversed() {
            let below = image
            image = try await imageInfo(layer, &names)
            image.backingImage = below
        }
        return BlockDeviceInfo(
            file: image.filename, nodeName: node.name, ro: node.isReadOnly, drv: node.formatName,
            backingFile: node.backingChild.map { names.filename(of: $0.node) }, backingFileDepth: chain.count - 1, active: node.isActive,
            encrypted: image.encrypted ?? false, detectZeroes: node.options.detectZeroes, bps: 0, bpsRd: 0, bpsWr: 0, iops: 0, iopsRd: 0, iopsWr: 0,
            image: image,
            cache: BlockdevCacheInfo(writeback: true, direct: node.options.bypassesCache, noFlush: node.options.ignoresFlushes), writeThreshold: Int(clamping: node.writeThreshold),
            dirtyBitmaps: bitmaps(of: node))
    }

    /// The node's bitmaps, the newest first; nil without any.
    private static func bitmaps(of node: BlockNode) -> [BlockDirtyInfo]? {
        let bitmaps = node.bitmaps.all
        if bitmaps.isEmpty { return nil }
        return bitmaps.reversed().map { bitmap in
            BlockDirtyInfo(
                name: bitmap.name, count: bitmap.dirtyByteCount, granularity: UInt32(clamping: bitmap.granularity), recording: bitmap.isRecording,
                busy: bitmap.isBusy, persistent: bitmap.isPersistent, inconsistent: bitmap.isInconsistent ? true : nil)
        }
    }

    /// The node and what shows through it: backing files, and what filters filter; top first.
    private static func backingChain(of node: BlockNode) -> [BlockNode] {
        var chain = [node]
        while chain.count <= longestDescribedChain, let below = chain[chain.count - 1].describedChild?.node { chain.append(below) }
        return chain
    }

    /// What one node says about its image, without the backing file's own description.
    package static func imageInfo(_ node: BlockNode) async throws(BlockError) -> ImageInfo {
        var names = NodeDescriptions()
        return try await imageInfo(node, &names)
    }

    /// The same, with the names of nodes that are known already.
    package static func imageInfo(_ node: BlockNode, _ names: inout NodeDescriptions) async throws(BlockError) -> ImageInfo {
        let description: ImageDescription?
        do throws(BlockError) {
            description = try await node.imageDescribing?.describeImage()
        } catch {
            throw error.during("Describing node '\(node.name)'")
        }
        var info = ImageInfo(filename: names.filename(of: node), format: node.formatName, virtualSize: node.length)
        info.actualSize = try allocatedSize(of: node)
        info.dirtyFlag = description?.isDirty ?? (endsInFile(node) ? false : nil)
        info.clusterSize = try await clusterSize(of: node, description)
        info.encrypted = description?.isEncrypted == true ? true : nil
        info.compressed = description?.hasCompressedClusters == true ? true : nil
        if let snapshots = description?.snapshots, !snapshots.isEmpty { info.snapshots = snapshots }
        info.formatSpecific = description?.specific ?? specific(of: node)
        if let name = description?.backingFileName {
            info.backingFilename = name
            info.fullBackingFilename = BackingReference.resolve(name, relativeTo: node.filename)
            info.backingFilenameFormat = description?.backingFormat
        }
        return info
    }

    /// A node that shows another one's data as it is has that one's clusters too.
    private static func clusterSize(of node: BlockNode, _ description: ImageDescription?) async throws(BlockError) -> Int? {
        var (node, size) = (node, description?.clusterSize)
        while size == nil, node.kind == .filter || node.formatName == "raw", let below = node.primaryChild?.node {
            node = below
            size = try await node.imageDescribing?.describeImage().clusterSize
        }
        return size
    }

    /// Bytes that the node's files take on the host, without the backing file's; nil when nobody can tell.
    package static func allocatedSize(of node: BlockNode) throws(BlockError) -> Int? {
        if let file = node.driver as? FileDriver { return try file.allocatedSize }
        if node.driver is NullDriver || node.driver is NullAIODriver { return 0 }
        // These do not say, and so nobody above them knows.
        if ["blkdebug", "blkverify"].contains(node.formatName) { return nil }
        var total: Int?
        for child in node.children where !child.role.contains(.copyOnWrite) {
            guard let size = try allocatedSize(of: child.node) else { return nil }
            total = (total ?? 0) + size
        }
        return total
    }

    private static func specific(of node: BlockNode) -> ImageInfoSpecific? {
        node.driver is FileDriver ? ImageInfoSpecific(.file(ImageInfoSpecificFileWrapper(data: ImageInfoSpecificFile()))) : nil
    }

    /// Whether the data is in a file: only then the question has a sense whether it was closed properly.
    private static func endsInFile(_ node: BlockNode) -> Bool {
        var node = node
        while let below = node.primaryChild?.node { node = below }
        return node.driver is FileDriver
    }
}

extension BlockNode {
    /// The image below in a description.
    fileprivate var describedChild: BlockChild? { kind == .filter ? primaryChild : backingChild }
}

extension BlockGraph {
    /// Every node, the newest first. The graph does not change meanwhile.
    /// - Parameter followsBacking: whether each image's backing files are described inside its own description.
    package func describeNodes(followsBacking: Bool) async throws(BlockError) -> [BlockDeviceInfo] {
        try await withoutChanges { () async throws(BlockError) -> [BlockDeviceInfo] in
            var descriptions: [BlockDeviceInfo] = []
            var names = NodeDescriptions()
            for node in allNodes.reversed() { descriptions.append(try await NodeDescriber.deviceInfo(node, followsBacking: followsBacking, &names)) }
            return descriptions
        }
    }
}
