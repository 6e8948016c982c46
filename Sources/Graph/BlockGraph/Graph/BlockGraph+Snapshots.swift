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
        try state.checkNotBlocked(.resize, on: name)
        // They would have to be all dirty, and whoever goes back knows better what that is relative to.
        if state.nodes[name]?.node.bitmaps.all.isEmpty == false { throw BlockError(.permissionConflict, "Device has active dirty bitmaps") }
        try await withSnapshots(of: name, used: [.write, .resize]) { driver throws(BlockError) in try await driver.applySnapshot(selector) }
    }

    package func deleteSnapshot(on name: String, _ selector: SnapshotSelector) async throws(BlockError) -> SnapshotInfo {
        try await withSnapshots(of: name, used: .writeUnchanged) { driver throws(BlockError) in try await driver.deleteSnapshot(selector) }
    }

    /// Has a read-only node show one of its snapshots.
    package func loadSnapshot(on name: String, _ selector: SnapshotSelector) async throws(BlockError) {
        try await withSnapshots(of: name, used: .consistentRead) { driver throws(BlockError) in try await driver.loadSnapshot(selector) }
    }

    private func withSnapshots<Result: Sendable>(
        of name: String, used: BlockPermissions, _ body: (any Snapshotting) async throws(BlockError) -> Result
    ) async throws(BlockError) -> Result {
        guard let node = state.nodes[name]?.node else { throw BlockError(.notFound, "Cannot find device='\(name)' nor node-name='\(name)'") }
        guard let driver = node.snapshotting else {
            throw BlockError(.unsupported, "Block format '\(node.formatName)' used by device '\(name)' does not support internal snapshots")
        }
        try state.checkNotBlocked(.snapshot, on: name)
        if used != .consistentRead, node.isReadOnly { throw node.readOnlyError }
        let backend = try await makeBackend(named: "internal snapshots of '\(name)'", on: name, PermissionGrant(used: used, shared: .all))
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
