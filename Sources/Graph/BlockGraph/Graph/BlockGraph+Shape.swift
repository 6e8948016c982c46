/// The whole graph as data: who uses what, what everybody does and what everybody lets others do. The machine-readable side of what a message
/// about a permission conflict says.
package struct GraphShape: Sendable {
    package enum Member: Sendable {
        case node(BlockNode)
        /// A user from outside.
        case backend(BlockBackend)
    }

    package struct Edge: Sendable {
        /// Positions in `members`.
        package let parent: Int
        package let child: Int
        package let name: String
        package let grant: PermissionGrant
    }

    /// Users from outside first, then nodes in the order in which they were added.
    package fileprivate(set) var members: [Member] = []
    package fileprivate(set) var edges: [Edge] = []
}

extension BlockGraph {
    package var shape: GraphShape {
        let state = snapshot
        var shape = GraphShape()
        let byID = state.edges.sorted { $0.key < $1.key }
        var backends: [ObjectIdentifier: Int] = [:]
        for (_, edge) in byID {
            guard case .backend(let backend) = edge.owner else { continue }
            backends[ObjectIdentifier(backend)] = shape.members.count
            shape.members.append(.backend(backend))
        }
        var nodes: [String: Int] = [:]
        for name in state.order {
            guard let node = state.nodes[name]?.node else { continue }
            nodes[name] = shape.members.count
            shape.members.append(.node(node))
        }
        for (_, edge) in byID {
            let parent: Int? =
                switch edge.owner {
                case .node(let name): nodes[name]
                case .backend(let backend): backends[ObjectIdentifier(backend)]
                }
            guard let parent, let child = nodes[edge.target] else { continue }
            shape.edges.append(GraphShape.Edge(parent: parent, child: child, name: edge.child.name, grant: edge.grant))
        }
        return shape
    }

    /// The users from outside that statistics know, in the order in which they came.
    package var devices: [BlockBackend] {
        snapshot.edges.sorted { $0.key < $1.key }.compactMap { entry in
            guard case .backend(let backend) = entry.value.owner, backend.device != nil else { return nil }
            return backend
        }
    }
}
