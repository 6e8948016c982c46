package import IOCore
import StrataBase

/// Everything the control plane knows about a graph, as one value.
///
/// A change works on a copy: it adds and removes edges, lets `refreshPermissions` compute what everybody may do, and only when that succeeds
/// (and the drivers have agreed) is the copy assigned back. Nothing of a change that fails is ever visible. Queries get a copy too
/// (`BlockGraph.snapshot`), which stays as it is while they work.
package struct GraphState: Sendable {
    /// A node and how it hangs together with others.
    package struct NodeRecord: Sendable {
        package let node: BlockNode
        /// The node's options as they will be when the change is committed.
        package internal(set) var options: NodeOptions
        /// Edges to its children, in the driver's order.
        package internal(set) var children: [EdgeID] = []
        /// Edges of its parents, the oldest first.
        package internal(set) var parents: [EdgeID] = []
        /// Made by blockdev-add (or the command line), so that it stays without parents until it is deleted by name.
        package internal(set) var isMonitorOwned = false
        /// What all parents need and tolerate together. Computed.
        package internal(set) var cumulative = PermissionGrant.none
        /// The I/O thread that new users of the node are served on, if somebody has chosen one.
        package internal(set) var context: IOContext?
        /// What must not be done to the node at the moment, and why.
        package internal(set) var blockers: [OperationBlocker] = []
    }

    package struct EdgeRecord: Sendable {
        package let child: BlockChild
        package let owner: Owner
        /// The name of the node at the lower end.
        package internal(set) var target: String
        package internal(set) var grant: PermissionGrant
    }

    package typealias EdgeID = Int

    /// Who holds the upper end of an edge.
    package enum Owner: Sendable {
        case node(String)
        case backend(BlockBackend)
    }

    package private(set) var nodes: [String: NodeRecord] = [:]
    package private(set) var edges: [EdgeID: EdgeRecord] = [:]
    /// Node names in the order in which they were added.
    package private(set) var order: [String] = []

    /// Nodes whose parents or options are not those of the state that this copy began as: permissions are computed from them downwards.
    private(set) var touched: Set<String> = []
    /// Nodes below whose backends no request may run while the change is committed, because it could see it.
    private(set) var disturbed: Set<String> = []
    /// Nodes whose options change, so that their drivers get ready anew whatever is wanted of them.
    private(set) var reconfigured: Set<String> = []
    /// Nodes that have come with this copy.
    private(set) var added: Set<String> = []

    // MARK: Building

    mutating func insert(_ node: BlockNode, isMonitorOwned: Bool) {
        precondition(nodes[node.name] == nil, "node names are unique")
        nodes[node.name] = NodeRecord(node: node, options: node.options, isMonitorOwned: isMonitorOwned)
        order.append(node.name)
        touched.insert(node.name)
        added.insert(node.name)
    }

    /// Adds an edge to `child.node`. The edges of a new node, or a new backend, disturb nobody; those of a node that is in use do
    /// (`GraphChange.attach`).
    mutating func attach(_ child: BlockChild, owner: Owner, grant: PermissionGrant = .none) {
        edges[child.id] = EdgeRecord(child: child, owner: owner, target: child.node.name, grant: grant)
        nodes[child.node.name]?.parents.append(child.id)
        touched.insert(child.node.name)
        if case .node(let name) = owner {
            nodes[name]?.children.append(child.id)
            touched.insert(name)
        }
    }

    mutating func detach(_ id: EdgeID) {
        guard let edge = edges.removeValue(forKey: id) else { return }
        nodes[edge.target]?.parents.removeAll { $0 == id }
        touched.insert(edge.target)
        if case .node(let name) = edge.owner {
            nodes[name]?.children.removeAll { $0 == id }
            touched.insert(name)
        }
    }

    /// Lets an edge lead to another node. The edge itself follows when the change is committed.
    mutating func retarget(_ id: EdgeID, to name: String) {
        guard let old = edges[id]?.target, old != name else { return }
        edges[id]?.target = name
        nodes[old]?.parents.removeAll { $0 == id }
        nodes[name]?.parents.append(id)
        touched.formUnion([old, name])
        disturbed.formUnion([old, name])
    }

    mutating func setMonitorOwned(_ name: String, _ owned: Bool) { nodes[name]?.isMonitorOwned = owned }

    mutating func setGrant(_ grant: PermissionGrant, of id: EdgeID) {
        edges[id]?.grant = grant
        if let target = edges[id]?.target { touched.insert(target) }
    }

    mutating func setComputedGrant(_ grant: PermissionGrant, of id: EdgeID) { edges[id]?.grant = grant }
    mutating func setCumulative(_ grant: PermissionGrant, of name: String) { nodes[name]?.cumulative = grant }

    mutating func setOptions(_ options: NodeOptions, of name: String) {
        guard nodes[name] != nil else { return }
        nodes[name]?.options = options
        touched.insert(name)
        reconfigured.insert(name)
        disturbed.insert(name)
    }

    mutating func disturb(_ name: String) { disturbed.insert(name) }
    mutating func touch(_ name: String) { touched.insert(name) }

    mutating func setContext(_ context: IOContext, of name: String) { nodes[name]?.context = context }

    mutating func addBlocker(_ blocker: OperationBlocker, to name: String) { nodes[name]?.blockers.append(blocker) }

    mutating func removeBlocker(_ id: OperationBlocker.ID) {
        for name in nodes.keys { nodes[name]?.blockers.removeAll { $0.id == id } }
    }

    /// Called when this has become the state: the next copy has changed nothing yet.
    mutating func settle() {
        touched = []
        added = []
        reconfigured = []
        disturbed = []
    }

    /// Removes nodes that nobody needs any more, beginning with `names`, and their edges.
    /// - Returns: the removed nodes, parents before children: the order in which they are closed.
    mutating func removeUnused(from names: [String]) -> [BlockNode] {
        var removed: [BlockNode] = []
        // A list of its own and no recursion: chains can be thousands deep.
        var candidates = Array(names.reversed())
        while let name = candidates.popLast() {
            guard let record = nodes[name], record.parents.isEmpty, !record.isMonitorOwned else { continue }
            let below = record.children.compactMap { edges[$0]?.target }
            for id in record.children { detach(id) }
            nodes[name] = nil
            touched.remove(name)
            removed.append(record.node)
            candidates += below.reversed()
        }
        if !removed.isEmpty {
            let gone = Set(removed.map(\.name))
            order.removeAll { gone.contains($0) }
        }
        return removed
    }

    // MARK: Asking

    /// Every node that can be reached from `roots` downwards, themselves included, each after all of its parents within the set.
    package func topologicalOrder(from roots: [String]) -> [String] {
        var visited: Set<String> = []
        var result: [String] = []
        // Depth first with a stack of its own: chains can be thousands deep.
        for root in roots where nodes[root] != nil && !visited.contains(root) {
            var stack: [(name: String, next: Int)] = [(root, 0)]
            visited.insert(root)
            while let (name, next) = stack.last {
                let children = nodes[name]?.children ?? []
                if next == children.count {
                    result.append(name)
                    stack.removeLast()
                    continue
                }
                stack[stack.count - 1].next += 1
                if let target = edges[children[next]]?.target, visited.insert(target).inserted { stack.append((target, 0)) }
            }
        }
        return result.reversed()
    }

    /// The named nodes and everything from which they can be reached, and the backends among that: the doors of all requests to them.
    func above(_ names: some Sequence<String>) -> (nodes: Set<String>, backends: [BlockBackend]) {
        var found: [BlockBackend] = []
        var visited = Set(names)
        var queue = Array(visited)
        while let name = queue.popLast() {
            for id in nodes[name]?.parents ?? [] {
                switch edges[id]?.owner {
                case .backend(let backend): found.append(backend)  // a backend has one edge, so it is met once
                case .node(let parent): if visited.insert(parent).inserted { queue.append(parent) }
                case nil: break
                }
            }
        }
        return (visited, found)
    }

    /// Everything that hangs together with a node, in whichever direction.
    func connected(to name: String) -> Set<String> {
        var found: Set = [name]
        var queue = [name]
        while let name = queue.popLast(), let record = nodes[name] {
            let near = record.children.compactMap { edges[$0]?.target }
                + record.parents.compactMap { id in if case .node(let parent)? = edges[id]?.owner { parent } else { nil } }
            for other in near where found.insert(other).inserted { queue.append(other) }
        }
        return found
    }

    /// The backends through which requests can reach any of the named nodes.
    func backends(above names: some Sequence<String>) -> [BlockBackend] { above(names).backends }

    /// Whether `descendant` can be reached from `ancestor`.
    package func reaches(from ancestor: String, to descendant: String) -> Bool { above([descendant]).nodes.contains(ancestor) }

    /// The edge to a node's child of that name.
    package func child(named name: String, of parent: String) -> EdgeRecord? {
        nodes[parent]?.children.lazy.compactMap { edges[$0] }.first { $0.child.name == name }
    }

    /// How an edge's holder is called in messages: `node 'x' (uses node 'y' as 'file' child)`.
    package func describe(_ edge: EdgeRecord) -> String {
        let use = "(uses node '\(edge.target)' as '\(edge.child.name)' child)"
        switch edge.owner {
        case .node(let name): return "node '\(name)' \(use)"
        case .backend(let backend): return "\(backend.name) \(use)"
        }
    }
}
