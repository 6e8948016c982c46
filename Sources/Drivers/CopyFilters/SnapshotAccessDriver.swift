package import BlockGraph
package import IOCore
package import StorageSchema
package import StrataBase

/// Shows the state that a `copy-before-write` node keeps (`driver=snapshot-access`): a disk that does not change while its origin does. It can be read;
/// discarding a part says that it is not wanted any more.
package final class SnapshotAccessDriver: BlockDriver, Discarding, StatusReporting {
    package static let formatName = "snapshot-access"
    package static let kind = DriverKind.format

    private let file: BlockChild
    package let length: Int

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .snapshotAccess(let own) = options.branch else {
            throw BlockError(.invalidArgument, "options of another driver were given to 'snapshot-access'")
        }
        return SnapshotAccessDriver(try await opener.openChild(own.file, as: "file", role: [.data, .primary]))
    }

    private init(_ file: BlockChild) {
        self.file = file
        length = (file.node.driver as? CopyBeforeWriteDriver)?.snapshotLength ?? file.length
    }

    package var children: [BlockChild] { [file] }

    /// Nothing that the filter below does concerns others.
    package func permissions(for role: ChildRole, parents: PermissionGrant, isReadOnly: Bool) -> PermissionGrant {
        PermissionGrant(used: .consistentRead, shared: .all)
    }

    private func source() throws(BlockError) -> CopyBeforeWriteDriver {
        guard let driver = file.node.driver as? CopyBeforeWriteDriver else {
            throw BlockError(
                .unsupported, "Block node '\(file.node.name)' (\(file.node.formatName)) keeps no snapshot to access",
                hint: "Put 'snapshot-access' directly above a node of driver 'copy-before-write'.")
        }
        return driver
    }

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        (file.node.driver as? CopyBeforeWriteDriver)?.tryReadSnapshot(target, at: offset) ?? false
    }

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        try await source().readSnapshot(target, at: offset)
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        throw BlockError(.unsupported, "A snapshot cannot be written to")
    }

    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        try await source().snapshotStatus(of: range, precise: precise)
    }

    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        try await source().discardSnapshot(range)
        return .done
    }
}
