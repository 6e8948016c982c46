import IOCore
package import StrataBase

extension BlockGraph {
    /// Begins to change bitmaps that images keep: they are marked as in use there until `end`. Then they are stored, unless somebody writes to the node
    /// anyway: in that case it is done when nobody does any more.
    ///
    /// Nodes whose image keeps no bitmaps, or cannot be written to, need nothing of this.
    /// - Parameter names: nodes with bitmaps that belong into their images.
    /// - Throws: why an image cannot be written to; then nothing has begun.
    package func beginBitmapChange(of names: Set<String>) async throws(BlockError) -> BitmapChange {
        var backends: [BlockBackend] = []
        do throws(BlockError) {
            for name in names.sorted() {
                guard let node = state.nodes[name]?.node, let driver = node.driver.asBitmapPersisting, !node.isReadOnly, node.isActive else { continue }
                backends.append(try await makeBackend(named: "change of dirty bitmaps", on: name, PermissionGrant(used: .writeUnchanged, shared: .all)))
                try await driver.prepareBitmapChange()
            }
        } catch {
            await end(BitmapChange(backends: backends))
            throw error
        }
        return BitmapChange(backends: backends)
    }

    package func end(_ change: BitmapChange) async { for backend in change.backends.reversed() { await release(backend) } }

    /// Removes a bitmap that nobody uses, from its image too.
    package func deleteBitmap(_ bitmap: DirtyBitmap, of nodeName: String) async throws(BlockError) {
        if bitmap.isPersistent, let name = bitmap.name, let driver = state.nodes[nodeName]?.node.driver.asBitmapPersisting {
            try await driver.removeStoredBitmap(named: name)
        }
        removeBitmap(bitmap, from: nodeName)
    }
}

/// What keeps images writable while their bitmaps change.
package struct BitmapChange: Sendable {
    fileprivate let backends: [BlockBackend]
}
