import StrataBase

/// Everything the control plane knows about a graph, as one value.
///
/// A change works on a copy: it adds and removes edges, lets `refreshPermissions` compute what everybody may do, and only when that succeeds
/// (and the drivers have agreed) is the copy assigned back. Nothing of a change that fails is ever visible.
struct GraphState: Sendable {
    /// A node and how it hangs together with others.
    struct NodeRecord: Sendable {
        let node: BlockNode
        /// Edges to its children, in the driver's order.
        var children: [EdgeID] = []
        /// Edges of its parents.
        var parents: [EdgeID] = []
        /// Made by blockdev-add (or the command line), so that it stays without parents until it is deleted by name.
        var isMonitorOwned = false
        /// What all parents need and tolerate together. Computed.
        var cumulative = PermissionGrant.none
    }

    struct EdgeRecord: Sendable {
        let child: BlockChild
        let owner: Owner
        /// The name of the node at the lower end.
        var target: String
        var grant: PermissionGrant
    }

    typealias EdgeID = UInt64

    /// Who holds the upper end of an edge.
    enum Owner: Sendable {
        case node(String)
        case backend(BlockBackend)
    }

    private(set) var nodes: [String: NodeRecord] = [:]
    private(set) var edges: [EdgeID: EdgeRecord] = [:]
    /// Node names in the order in which they were added.
    private(set) var order: [String] = []

    // MARK: Building

    mutating func insert(_ node: BlockNode, isMonitorOwned: Bool) {
        precondition(nodes[node.name] == nil, "node names are unique")
        nodes[node.name] = NodeRecord(node: node, isMonitorOwned: isMonitorOwned)
        order.append(node.name)
    }

    mutating func attach(_ child: BlockChild, owner: Owner, grant: PermissionGrant = .none) {
        edges[child.id] = EdgeRecord(child: child, owner: owner, target: child.node.name, grant: grant)
        nodes[child.node.name]?.parents.append(child.id)
        if case .node(let name) = owner { nodes[name]?.children.append(child.id) }
    }

    mutating func detach(_ id: EdgeID) {
        guard let edge = edges.removeValue(forKey: id) else { return }
        nodes[edge.target]?.parents.removeAll { $0 == id }
        if case .node(let name) = edge.owner { nodes[name]?.children.removeAll { $0 == id } }
    }

    mutating func setMonitorOwned(_ name: String, _ owned: Bool) { nodes[name]?.isMonitorOwned = owned }
    mutating func setGrant(_ grant: PermissionGrant, of id: EdgeID) { edges[id]?.grant = grant }
    mutating func setCumulative(_ grant: PermissionGrant, of name: String) { nodes[name]?.cumulative = grant }

    /// Removes nodes that nobody needs any more, beginning with `name`, and their edges.
    /// - Returns: the removed nodes, parents before children: the order in which they are closed.
    mutating func removeUnused(from name: String) -> [BlockNode] {
        guard let record = nodes[name], record.parents.isEmpty, !record.isMonitorOwned else { return [] }
        let below = record.children.compactMap { edges[$0]?.target }
        for id in record.children { detach(id) }
        nodes[name] = nil
        order.removeAll { $0 == name }
        var removed = [record.node]
        for child in below { removed += removeUnused(from: child) }
        return removed
    }

    // MARK: Asking

    /// Every node that can be reached from `name` downwards, itself included, each after all of its parents within the set.
    func topologicalOrder(from roots: [String]) -> [String] {
        var visited: Set<String> = []
        var result: [String] = []
        // Depth first with a stack of its own: chains can be thousands deep.
        for root in roots where !visited.contains(root) {
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

    /// The backends through which requests can reach any of the named nodes.
    func backends(above names: [String]) -> [BlockBackend] {
        var found: [ObjectIdentifier: BlockBackend] = [:]
        var visited = Set(names)
        var queue = names
        while let name = queue.popLast() {
            for id in nodes[name]?.parents ?? [] {
                switch edges[id]?.owner {
                case .backend(let backend): found[ObjectIdentifier(backend)] = backend
                case .node(let parent): if visited.insert(parent).inserted { queue.append(parent) }
                case nil: break
                }
            }
        }
        return Array(found.values)
    }

    /// Whether `descendant` can be reached from `ancestor`.
    func reaches(from ancestor: String, to descendant: String) -> Bool { topologicalOrder(from: [ancestor]).contains(descendant) }

    /// How an edge's holder is called in messages: `node 'x' (uses node 'y' as 'file' child)`.
    func describe(_ edge: EdgeRecord) -> String {
        let use = "(uses node '\(edge.target)' as '\(edge.child.name)' child)"
        switch edge.owner {
        case .node(let name): return "node '\(name)' \(use)"
        case .backend(let backend): return "\(backend.name) \(use)"
        }
    }
}
