package import StorageSchema
package import StrataBase

// Snapshots that a node's format keeps inside its image. Nobody uses the node meanwhile.

extension BlockGraph {
    /// What the disk shows stays; the image must be open for writing.
    package func createSnapshot(on name: String, named snapshot: String, moment: SnapshotMoment) async throws(BlockError) -> SnapshotInfo {
        try await withSnapshots(of: name, used: .writeUnchanged) { driver throws(BlockError) in try await driver.createSnapshot(named: snapshot, moment: moment) }
    }

    /// The disk becomes what it was, its size included.
    package func applySnapshot(on name: String, _ selector: SnapshotSelector) async throws(BlockError) {
        try await withSnapshots(of: name, used: [.write, .resize], blockedBy: [.resize, .snapshot]) { driver throws(BlockError) in try await driver.applySnapshot(selector) }
    }

    package func deleteSnapshot(on name: String, _ selector: SnapshotSelector) async throws(BlockError) -> SnapshotInfo {
        try await withSnapshots(of: name, used: .writeUnchanged) { driver throws(BlockError) in try await driver.deleteSnapshot(selector) }
    }

    /// Has a read-only node show one of its snapshots.
    package func loadSnapshot(on name: String, _ selector: SnapshotSelector) async throws(BlockError) {
        try await withSnapshots(of: name, used: .consistentRead) { driver throws(BlockError) in try await driver.loadSnapshot(selector) }
    }

    private func withSnapshots<Result: Sendable>(
        of name: String, used: BlockPermissions, blockedBy operations: [BlockedOperation] = [.snapshot], _ body: (any Snapshotting) async throws(BlockError) -> Result
    ) async throws(BlockError) -> Result {
        guard let node = state.nodes[name]?.node else { throw BlockError(.notFound, "Cannot find device='\(name)' nor node-name='\(name)'") }
        guard let driver = node.snapshotting else {
            throw BlockError(.unsupported, "Block format '\(node.formatName)' used by device '\(name)' does not support internal snapshots")
        }
        // Looked at in the change that takes hold of the node: whoever forbids it comes before or finds it in use.
        let backend = try await change { change throws(BlockError) -> BlockBackend in
            for operation in operations { try change.state.checkNotBlocked(operation, on: name) }
            // They would have to be all dirty, and whoever goes back knows better what that is relative to.
            if used.contains(.resize), !node.bitmaps.all.isEmpty { throw BlockError(.permissionConflict, "Device has active dirty bitmaps") }
            guard change.state.nodes[name]?.node === node else { throw BlockError(.notFound, "Cannot find device='\(name)' nor node-name='\(name)'") }
            if used != .consistentRead, node.isReadOnly { throw node.readOnlyError }
            return change.makeBackend(named: "internal snapshots of '\(name)'", on: node, PermissionGrant(used: used, shared: .all))
        }
        let outcome: Swift.Result<Result, BlockError>
        do throws(BlockError) {
            let drain = await beginDrain(of: [name])
            defer { end(drain) }
            outcome = .success(try await body(driver))
        } catch { outcome = .failure(error) }
        await release(backend)
        return try outcome.get()
    }
}
