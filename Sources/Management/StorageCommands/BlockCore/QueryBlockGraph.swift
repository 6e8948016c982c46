import BlockGraph
package import StorageSchema

extension StorageService {
    /// Describes the graph with every permission.
    package func xDebugQueryBlockGraph() async throws -> XDbgBlockGraph {
        let shape = await graph.shape
        let nodes = shape.members.enumerated().map { index, member in
            switch member {
            case .node(let node): XDbgBlockGraphNode(id: UInt64(index + 1), type: .blockDriver, name: node.name)
            case .backend(let backend): XDbgBlockGraphNode(id: UInt64(index + 1), type: .blockBackend, name: backend.name)
            }
        }
        let edges = shape.edges.map { edge in
            XDbgBlockGraphEdge(
                parent: UInt64(edge.parent + 1), child: UInt64(edge.child + 1), name: edge.name, perm: Self.names(edge.grant.used),
                sharedPerm: Self.names(edge.grant.shared))
        }
        return XDbgBlockGraph(nodes: nodes, edges: edges)
    }

    private static func names(_ permissions: BlockPermissions) -> [BlockPermission] {
        var names: [BlockPermission] = []
        if permissions.contains(.consistentRead) { names.append(.consistentRead) }
        if permissions.contains(.write) { names.append(.write) }
        if permissions.contains(.writeUnchanged) { names.append(.writeUnchanged) }
        if permissions.contains(.resize) { names.append(.resize) }
        return names
    }
}
