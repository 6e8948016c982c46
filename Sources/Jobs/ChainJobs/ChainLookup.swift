package import BlockGraph
package import StrataBase

// Finding images of a chain by what users call them.

extension GraphChange {
    /// The nodes from one down its chain, itself first; filters among them.
    func chain(from name: String) throws(BlockError) -> [BlockNode] {
        var chain = [try record(name).node]
        while let link = state.chainLink(of: chain[chain.count - 1]), let node = state.nodes[link.target]?.node { chain.append(node) }
        return chain
    }

    /// The node of an image that a user names by its file.
    /// - Parameter chain: where to look, from the overlay down. Its first image is not looked at.
    func image(called file: String, in chain: [BlockNode]) -> BlockNode? {
        let below = chain.drop { $0.kind == .filter }
        for (above, node) in zip(below, below.dropFirst()) where node.kind != .filter {
            if node.filename == file || above.imageDescribing?.backingName == file { return node }
            if let name = node.filename, HostPath.absolute(name) == HostPath.absolute(file) { return node }
        }
        return nil
    }

    /// - Throws: `.notFound` in the words for a name that is no device's either.
    package func node(named name: String) throws(BlockError) -> BlockNode {
        guard let record = state.nodes[name] else { throw BlockError(.notFound, "Cannot find device='' nor node-name='\(name)'") }
        return record.node
    }

    /// - Throws: `.invalidArgument` for a node that another node uses.
    package func checkIsRoot(_ name: String) throws(BlockError) {
        for id in try record(name).parents {
            if case .node? = state.edges[id]?.owner { throw BlockError(.invalidArgument, "Need a root block node") }
        }
    }
}

extension BlockNode {
    /// The first node from this one down its chain that is not a filter; itself when there is none.
    var image: BlockNode {
        var node = self
        while node.kind == .filter, let below = node.below { node = below }
        return node
    }

    /// What the chain goes on with: the backing file, or what a filter shows. A format that shows the bytes of its file (raw) ends a chain.
    var below: BlockNode? { kind == .filter ? chainChild?.node : backingChild?.node }
}

extension GraphState {
    /// As `BlockNode.below`, in a graph that is being changed.
    func chainLink(of node: BlockNode) -> EdgeRecord? {
        nodes[node.name]?.children.lazy.compactMap { self.edges[$0] }.first { $0.child.role.contains(node.kind == .filter ? .filtered : .copyOnWrite) }
    }
}

extension BlockNode {
    /// What to write into an overlay's image so that this node's is found as its backing file.
    /// - Parameters:
    ///   - file: what a user wants there.
    ///   - masksProtocol: what is not an image of a format is called `raw`, whatever it lies on.
    static func backingName(of node: BlockNode?, file: String?, masksProtocol: Bool, names: inout NodeDescriptions) -> (name: String?, format: String?) {
        guard let image = node?.image else { return (file, nil) }
        return (file ?? names.filename(of: image), masksProtocol && image.kind == .protocol ? "raw" : image.formatName)
    }
}
