/// The permission rules for the ordinary kinds of children, as QEMU's documentation and behaviour have them. Drivers with other needs
/// implement `permissions(for:parents:isReadOnly:)` themselves. Docs/Permissions.md explains each rule.
package enum DefaultPermissions {
    package static func grant(kind: DriverKind, role: ChildRole, parents: PermissionGrant, isReadOnly: Bool) -> PermissionGrant {
        if role.contains(.filtered) { return parents }
        if role.contains(.copyOnWrite) { return backing(parents: parents) }
        return storage(role: role, parents: parents, isReadOnly: isReadOnly)
    }

    /// A backing file is only read. Others may change it only if our own parents can live with data that changes by itself.
    private static func backing(parents: PermissionGrant) -> PermissionGrant {
        var shared: BlockPermissions = [.consistentRead, .writeUnchanged]
        if parents.shared.contains(.write) { shared.formUnion([.write, .resize]) }
        return PermissionGrant(used: parents.used.intersection(.consistentRead), shared: shared)
    }

    /// The file below a format. The format is the only one that knows what is where in it, so nobody else may write or resize.
    private static func storage(role: ChildRole, parents: PermissionGrant, isReadOnly: Bool) -> PermissionGrant {
        var grant = parents
        if role.contains(.metadata) {
            // Metadata is read for every request, and written even when no guest writes (dirty bits, repairs).
            grant.used.insert(.consistentRead)
            if !isReadOnly { grant.used.formUnion([.write, .resize]) }
            grant.shared.subtract([.write, .resize])
        }
        if role.contains(.data) {
            // What a guest sees unchanged may still be a change in the file, for example an allocation.
            if grant.used.contains(.writeUnchanged) { grant.used.insert(.write) }
            if grant.used.contains(.write) { grant.used.insert(.resize) }
            grant.shared.remove(.resize)
        }
        grant.shared.formUnion([.consistentRead, .writeUnchanged])
        return grant
    }
}
