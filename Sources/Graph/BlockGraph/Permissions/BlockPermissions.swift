/// What somebody does with a node.
package struct BlockPermissions: OptionSet, Hashable, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Reads, and expects that the data makes sense.
    package static let consistentRead = BlockPermissions(rawValue: 1 << 0)
    /// Writes.
    package static let write = BlockPermissions(rawValue: 1 << 1)
    /// Writes data that a reader sees already, as copy-on-read does.
    package static let writeUnchanged = BlockPermissions(rawValue: 1 << 2)
    /// Changes the size.
    package static let resize = BlockPermissions(rawValue: 1 << 3)

    package static let all: BlockPermissions = [.consistentRead, .write, .writeUnchanged, .resize]
}

extension BlockPermissions: CustomStringConvertible {
    /// The names as in QAPI's BlockPermission, separated by commas.
    package var description: String {
        let names: [(BlockPermissions, String)] = [
            (.consistentRead, "consistent-read"), (.write, "write"), (.writeUnchanged, "write-unchanged"), (.resize, "resize"),
        ]
        return names.filter { contains($0.0) }.map(\.1).joined(separator: ", ")
    }
}

/// What one parent does with a node and what it tolerates from others. The two always travel together.
package struct PermissionGrant: Hashable, Sendable {
    package var used: BlockPermissions
    package var shared: BlockPermissions

    package init(used: BlockPermissions, shared: BlockPermissions) {
        self.used = used
        self.shared = shared
    }

    /// Uses nothing and tolerates everything: a parent that is only holding on.
    package static let none = PermissionGrant(used: [], shared: .all)

    /// What `other` uses although this grant does not share it. Ask in both directions before attaching.
    package func conflicts(with other: PermissionGrant) -> BlockPermissions { other.used.subtracting(shared) }

    /// What several parents need and tolerate together.
    package func combined(with other: PermissionGrant) -> PermissionGrant {
        PermissionGrant(used: used.union(other.used), shared: shared.intersection(other.shared))
    }
}
