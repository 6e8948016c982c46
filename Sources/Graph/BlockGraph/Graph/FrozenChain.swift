import StrataBase

/// Relies on the chain below it as it is, down to a certain node: the links in between can neither be cut nor lead elsewhere while the node lives.
package protocol ChainFreezing: BlockDriver {
    /// The name of the last node that must stay below; nil when the chain may change.
    var frozenBottom: String? { get }
}

extension GraphState {
    /// - Throws: `.permissionConflict` when somebody above relies on what the edge leads to.
    func checkNotFrozen(_ edge: EdgeRecord) throws(BlockError) {
        guard case .node(let owner) = edge.owner, let holder = freezer(of: edge, ownedBy: owner) else { return }
        throw BlockError(
            .permissionConflict, "Cannot change frozen '\(edge.child.name)' link from '\(owner)' to '\(edge.target)'",
            hint: "Node '\(holder)' relies on the chain: delete it first.")
    }

    /// The node that keeps an edge from changing.
    private func freezer(of edge: EdgeRecord, ownedBy owner: String) -> String? {
        guard edge.child.isChainLink else { return nil }
        return above([owner]).nodes.first { name in
            guard let bottom = (nodes[name]?.node.driver as? any ChainFreezing)?.frozenBottom else { return false }
            return chain(from: name, to: bottom).contains(edge.child.id)
        }
    }

    /// The edges on the way from a node down its chain to another.
    private func chain(from top: String, to bottom: String) -> Set<EdgeID> {
        var found: Set<EdgeID> = []
        var name = top
        while name != bottom, let link = nodes[name]?.children.lazy.compactMap({ edges[$0] }).first(where: \.child.isChainLink) {
            found.insert(link.child.id)
            name = link.target
        }
        return found
    }
}

extension BlockChild {
    /// Whether the parent shows the child's data as its own, in part or as a whole.
    fileprivate var isChainLink: Bool { !role.isDisjoint(with: [.copyOnWrite, .filtered]) }
}
