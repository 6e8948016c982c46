import IOCore
package import StrataBase

extension BlockGraph {
    /// Gives a node a bitmap. When this returns, no write is under way that it would not note.
    /// - Parameters:
    ///   - name: nil for a tracker of one's own, which no command sees.
    ///   - granularity: bytes per bit; nil for what suits the image.
    ///   - isPersistent: it is kept in the image.
    ///   - isEnabled: writes are noted from the beginning.
    /// - Throws: `.notFound`; what is wrong with the name or the granularity; why the image cannot keep it.
    @discardableResult
    package func addBitmap(
        named name: String?, to nodeName: String, granularity: Int? = nil, isPersistent: Bool = false, isEnabled: Bool = true
    ) async throws(BlockError) -> DirtyBitmap {
        let bitmap = try await changes.withLock { () async throws(BlockError) -> DirtyBitmap in
            guard let node = state.nodes[nodeName]?.node else {
                throw BlockError(.notFound, "Cannot find device='\(nodeName)' nor node-name='\(nodeName)'")
            }
            if name?.isEmpty == true { throw BlockError(.invalidArgument, "Bitmap name cannot be empty") }
            let size: Int
            if let granularity { size = granularity } else { size = HierarchicalBitmap.defaultGranularity(clusterSize: try await node.clusterSize) }
            let bits = try HierarchicalBitmap(byteCount: node.length, granularity: size)
            if isPersistent { try await node.checkRoom(forBitmapNamed: name ?? "", granularity: size) }
            if let name, node.bitmaps.bitmap(named: name) != nil { throw BlockError(.alreadyExists, "Bitmap already exists: \(name)") }
            if let name, name.utf8.count > DirtyBitmap.maximumNameLength { throw BlockError(.invalidArgument, "Bitmap name too long: \(name)") }
            let bitmap = DirtyBitmap(name: name, bits: bits, isEnabled: isEnabled, isPersistent: isPersistent)
            try node.bitmaps.add(bitmap)
            // The node may have grown since its size was asked.
            node.bitmaps.noteSize(node.length)
            return bitmap
        }
        // A synchronous write looks once, before it begins, whether anything is to be noted.
        await IOContextRegistry.waitForTurnBoundaries()
        return bitmap
    }

    /// Takes a bitmap from a node, wherever it is by now. The image keeps what it has (`removeStoredBitmap`).
    package func removeBitmap(_ bitmap: DirtyBitmap, from nodeName: String) { state.nodes[nodeName]?.node.bitmaps.remove(bitmap) }

    /// A bitmap that a user names.
    /// - Throws: `.notFound`, in QEMU's words.
    package func bitmap(named name: String, of nodeName: String) throws(BlockError) -> (node: BlockNode, bitmap: DirtyBitmap) {
        guard let node = state.nodes[nodeName]?.node else { throw BlockError(.notFound, "Node '\(nodeName)' not found") }
        guard let bitmap = node.bitmaps.bitmap(named: name) else { throw BlockError(.notFound, "Dirty bitmap '\(name)' not found") }
        return (node, bitmap)
    }

    /// Takes bitmaps for somebody who shows them to others, and who says with `setBusy` when he has done so.
    /// - Parameters:
    ///   - local: is looked for in the node and then down its chain; nil where `external` says the node.
    ///   - isReadOnly: nothing can be written through him, so that a bitmap of a writable node that notes writes is not what he thinks.
    /// - Throws: `.notFound`, and what stands in the way, in QEMU's words. Then none is busy.
    package func takeBitmaps(
        _ references: [(node: String?, name: String)], forUserOf root: String, isReadOnly: Bool
    ) async throws(BlockError) -> [DirtyBitmap] {
        var found: [DirtyBitmap] = []
        for reference in references {
            let (node, bitmap): (BlockNode, DirtyBitmap)
            if let name = reference.node {
                (node, bitmap) = try self.bitmap(named: reference.name, of: name)
            } else {
                (node, bitmap) = try self.bitmap(named: reference.name, inChainFrom: root)
            }
            if reference.node == nil, isReadOnly, !node.isReadOnly, bitmap.isRecording {
                throw BlockError(.permissionConflict, "Enabled bitmap '\(reference.name)' incompatible with readonly export")
            }
            try bitmap.check(.forReading)
            found.append(bitmap)
        }
        for bitmap in found { bitmap.setBusy(true) }
        return found
    }

    private func bitmap(named name: String, inChainFrom root: String) throws(BlockError) -> (BlockNode, DirtyBitmap) {
        var next = state.nodes[root]?.node
        while let node = next {
            if let bitmap = node.bitmaps.bitmap(named: name) { return (node, bitmap) }
            next = node.chainChild?.node
        }
        throw BlockError(.notFound, "Bitmap '\(name)' is not found")
    }
}

extension BlockNode {
    fileprivate func checkRoom(forBitmapNamed name: String, granularity: Int) async throws(BlockError) {
        guard let driver = driver.asBitmapPersisting else {
            throw BlockError(.unsupported, "Can't store persistent bitmaps to \(self.name): Operation not supported")
        }
        do throws(BlockError) { try await driver.checkRoom(forBitmapNamed: name, granularity: granularity) } catch {
            throw error.during("Can't make bitmap '\(name)' persistent in '\(self.name)'")
        }
    }
}
