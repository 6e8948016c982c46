import BlockGraph
package import StorageSchema
package import StrataBase

// Snapshots inside images. Errors are worded as QEMU words them.

extension StorageService {
    /// Keeps what a node's disk is now inside its image.
    package func blockdevSnapshotInternalSync(_ arguments: BlockdevSnapshotInternal) async throws {
        try await run([InternalSnapshotStep(self, arguments)])
    }

    /// The same for those who may have to take it back.
    package func createInternalSnapshot(device: String, name: String) async throws(BlockError) -> SnapshotInfo {
        let node = try await rootNode(device)
        if node.isReadOnly { throw BlockError(.readOnly, "Device '\(device)' is read only") }
        guard let driver = node.snapshotting else {
            throw BlockError(.unsupported, "Block format '\(node.formatName)' used by device '\(device)' does not support internal snapshots")
        }
        if name.isEmpty { throw BlockError(.invalidArgument, "Name is empty") }
        if try await driver.listSnapshots().contains(where: { $0.name == name }) {
            throw BlockError(.alreadyExists, "Snapshot with name '\(name)' already exists on device '\(device)'")
        }
        do { return try await graph.createSnapshot(on: device, named: name, moment: SnapshotMoment(.now)) } catch {
            throw error.during("Failed to create snapshot '\(name)' on device '\(device)'")
        }
    }

    /// Removes a snapshot from inside an image.
    package func blockdevSnapshotDeleteInternalSync(_ arguments: BlockdevSnapshotDeleteInternalSyncArguments) async throws -> SnapshotInfo {
        let node = try await rootNode(arguments.device)
        guard arguments.id != nil || arguments.name != nil else { throw BlockError(.invalidArgument, "Name or id must be provided") }
        guard let driver = node.snapshotting else { throw BlockError(.unsupported, "Failed to get a snapshot list: Operation not supported") }
        let (id, name) = (arguments.id, arguments.name)
        guard try await driver.listSnapshots().contains(where: { (id == nil || $0.id == id) && (name == nil || $0.name == name) }) else {
            throw BlockError(
                .notFound, "Snapshot with id '\(id ?? "null")' and name '\(name ?? "null")' does not exist on device '\(arguments.device)'")
        }
        do { return try await graph.deleteSnapshot(on: arguments.device, SnapshotSelector(id: id, name: name)) } catch {
            throw error.during("Failed to remove snapshot from snapshot list")
        }
    }

    /// A node that no other node uses.
    private func rootNode(_ name: String) async throws(BlockError) -> BlockNode {
        guard let node = await graph.node(named: name) else { throw BlockError(.notFound, "Cannot find device='\(name)' nor node-name='\(name)'") }
        guard await graph.isRoot(name) else { throw BlockError(.invalidArgument, "Need a root block node") }
        return node
    }
}
