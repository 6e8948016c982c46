import StrataBase

/// Computes, for a graph as it would be, what every edge is granted, and refuses a graph in which two parents exclude each other.
///
/// A pure function of the state: no driver is touched. Parents come before children, because what a node needs from below depends on what
/// is wanted of it from above. Only nodes that the change has touched and those below them can end up with something else.
extension GraphState {
    /// - Throws: `.permissionConflict` naming both parties, or `.readOnly`.
    mutating func refreshPermissions() throws(BlockError) {
        for name in touchedBelow {
            guard let record = nodes[name] else { continue }
            if !record.options.isActive {
                try refuseWriters(ofInactive: record)
                setCumulative(.none, of: name)
                for id in record.children { setComputedGrant(.none, of: id) }
                continue
            }
            try refuseConflicts(at: record)
            var cumulative = PermissionGrant.none
            for id in record.parents {
                if let grant = edges[id]?.grant { cumulative = cumulative.combined(with: grant) }
            }
            if record.options.isReadOnly, !cumulative.used.isDisjoint(with: [.write, .writeUnchanged, .resize]) {
                // Who makes it read-only hears of those who write, and who wants to write that it is read-only.
                throw record.node.isReadOnly
                    ? record.options.readOnlyError(ofNode: name)
                    : BlockError(.readOnly, "Read-only block node '\(name)' cannot support read-write users")
            }
            setCumulative(cumulative, of: name)
            // With auto-read-only a node writes exactly while somebody writes to it: until then it is to its children like a read-only one.
            let writers: BlockPermissions = [.write, .writeUnchanged, .resize]
            let isReadOnly = record.options.isReadOnly || (record.options.isAutoReadOnly && cumulative.used.isDisjoint(with: writers))
            for id in record.children {
                guard let edge = edges[id] else { continue }
                var grant = record.node.driver.permissions(for: edge.child.role, parents: cumulative, isReadOnly: isReadOnly)
                // Whoever only looks at an image that others use puts up with whatever they do.
                if record.options.forceShare { grant.shared = .all }
                setComputedGrant(grant, of: id)
            }
        }
    }

    /// Nobody holds permissions on an inactive node. Who can live with that gets what it wants when the node is active again.
    private func refuseWriters(ofInactive record: NodeRecord) throws(BlockError) {
        for id in record.parents {
            guard let edge = edges[id], case .backend(let backend) = edge.owner, !backend.allowsInactive else { continue }
            let writing = edge.grant.used.intersection([.write, .writeUnchanged, .resize])
            if !writing.isEmpty { throw BlockError(.permissionConflict, "Permission '\(writing)' unavailable on inactive node") }
        }
    }

    private func refuseConflicts(at record: NodeRecord) throws(BlockError) {
        let parents = record.parents.compactMap { edges[$0] }
        for (index, one) in parents.enumerated() {
            for other in parents[(index + 1)...] {
                try refuse(user: one, refuser: other, record.node.name)
                try refuse(user: other, refuser: one, record.node.name)
            }
        }
    }

    private func refuse(user: EdgeRecord, refuser: EdgeRecord, _ name: String) throws(BlockError) {
        let conflict = refuser.grant.conflicts(with: user.grant)
        if conflict.isEmpty { return }
        throw BlockError(
            .permissionConflict,
            "Permission conflict on node '\(name)': permissions '\(conflict)' are both required by \(describe(user)) and unshared by \(describe(refuser))",
            hint: PermissionAdvice.hint(conflict, user: user, refuser: refuser, newNodes: added))
    }
}
