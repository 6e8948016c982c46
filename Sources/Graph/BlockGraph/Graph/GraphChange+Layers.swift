package import StorageSchema
package import StrataBase

// The ways in which layers go on top of nodes, between them and away again.

extension GraphChange {
    /// Lets everybody who uses `old` use `new` from now on, except `new` itself and what lies below it.
    /// - Parameter edges: only these of its users.
    package func replace(_ old: String, with new: String, edges: Set<GraphState.EdgeID>? = nil) throws(BlockError) {
        let record = try record(old)
        for id in record.parents where edges?.contains(id) ?? true {
            guard let edge = state.edges[id] else { continue }
            if case .node(let parent) = edge.owner, state.reaches(from: new, to: parent) { continue }
            do throws(BlockError) { try state.checkNotFrozen(edge) } catch {
                // A user that cannot follow is told of by the link's name alone, as in QEMU.
                throw BlockError(error.code, "Cannot change '\(edge.child.name)' link to '\(old)'", hint: error.hint)
            }
            try retarget(id, to: new)
        }
    }

    /// Puts an overlay on top of a node: it reads through to the node, and takes over the node's users.
    /// - Throws: `.unsupported`, `.invalidArgument` when the overlay has a backing file already or lies below the node.
    package func append(_ overlay: String, onTopOf node: String) throws(BlockError) {
        let top = try record(overlay)
        if top.node.kind == .filter { throw BlockError(.invalidArgument, "Filters cannot be used as overlays") }
        guard type(of: top.node.driver).supportsBacking else { throw BlockError(.unsupported, "The overlay does not support backing images") }
        try attach(node, to: overlay, as: "backing", role: .copyOnWrite)
        try replace(node, with: overlay)
    }

    /// Opens a filter over a node, where the options name the node as its child, and lets the node's users go through it.
    /// - Parameter edges: only these of its users.
    @discardableResult
    package func insertFilter(
        _ options: BlockdevOptions, above node: String, isMonitorOwned: Bool, edges: Set<GraphState.EdgeID>? = nil
    ) async throws(BlockError) -> BlockNode {
        let users: Set<GraphState.EdgeID> = if let edges { edges } else { Set(try record(node).parents) }
        let filter = try await open(options, isMonitorOwned: isMonitorOwned)
        guard let child = state.edges.values.first(where: { $0.isOwned(by: filter.name) && $0.child.role.contains(.filtered) }), child.target == node else {
            throw BlockError(.invalidArgument, "Node '\(filter.name)' does not filter node '\(node)'")
        }
        try replace(node, with: filter.name, edges: users)
        return filter
    }

    /// Puts a filter over a node that a job has made for itself and that no user could open by its options, and lets the node's users go through it.
    /// The filter goes when nobody uses it: the job keeps a backend on it.
    /// - Parameters:
    ///   - name: nil for a made-up one.
    ///   - members: the filter's children, the filtered one first.
    ///   - isReadOnly: nobody writes through it, whatever lies below.
    ///   - make: gets the edges to them.
    /// - Throws: `.alreadyExists`, `.invalidArgument` for the name; what says that a child is inactive.
    package func insertFilter(
        named name: String?, children members: [(name: String, role: ChildRole, target: String)], isReadOnly: Bool = false, _ make: ([BlockChild]) -> any BlockDriver
    ) throws(BlockError) -> BlockNode {
        guard let filtered = members.first else { preconditionFailure("a filter has something to filter") }
        let chosen = try chooseName(name)
        let users = Set(try record(filtered.target).parents)
        var children: [BlockChild] = []
        for (name, role, target) in members {
            let node = try record(target).node
            if role.contains(.filtered) { try node.refuseInactive(as: name, of: chosen) }
            // Other children are written to.
            if !node.options.isActive { throw BlockError(.permissionConflict, "Permission 'write' unavailable on inactive node") }
            children.append(BlockChild(name: name, role: role, node: node))
        }
        var options = NodeOptions()
        let below = try record(filtered.target)
        options.isReadOnly = isReadOnly || below.options.isReadOnly
        let node = BlockNode(name: chosen, driver: make(children), options: options)
        insert(node, children)
        try replace(filtered.target, with: chosen, edges: users)
        return node
    }

    /// Takes a filter out: its users use what is below it. The filter goes if nobody else holds it.
    package func removeFilter(_ name: String) throws(BlockError) {
        let record = try record(name)
        guard let below = record.children.lazy.compactMap({ self.state.edges[$0] }).first(where: { $0.child.role.contains(.filtered) }) else {
            throw BlockError(.invalidArgument, "Node '\(name)' is not a filter")
        }
        try replace(name, with: below.target)
        release(name)
    }

    /// Makes a node, and the nodes that it keeps its own data in, read-only or writable. What it has in memory is written out before.
    ///
    /// Its backing file and nodes with a name and a life of their own stay as they are.
    package func setReadOnly(_ isReadOnly: Bool, of name: String) throws(BlockError) {
        var names = [name]
        while let name = names.popLast() {
            let record = try record(name)
            if record.options.isReadOnly != isReadOnly {
                var options = record.options
                options.isReadOnly = isReadOnly
                setOptions(options, of: name)
                if isReadOnly { add(FlushFirst(record.node)) }
            }
            for id in record.children {
                guard let edge = state.edges[id], let below = state.nodes[edge.target], !edge.child.role.contains(.copyOnWrite) else { continue }
                if !below.isMonitorOwned, below.parents.count == 1 { names.append(edge.target) }
            }
        }
    }
}

/// Writes out what a node has in memory, as long as it may still write.
private final class FlushFirst: ChangeParticipant {
    private let node: BlockNode
    init(_ node: BlockNode) { self.node = node }
    func prepare() async throws(BlockError) {
        do throws(BlockError) { try await node.flushing?.flush() } catch { throw error.during("Flushing node '\(node.name)'") }
    }
    func commit() async {}
    func abort() async {}
}

extension GraphState.EdgeRecord {
    func isOwned(by name: String) -> Bool { if case .node(name) = owner { true } else { false } }
}
