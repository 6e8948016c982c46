package import BlockGraph
package import StrataBase

// Finding images of a chain by what users call them.

extension GraphChange {
    /// The nodes from one down its chain, itself first; filters among them.
    func chain(from name: String) throws(BlockError) -> [BlockNode] {
        var chain = [try record(name).node]
        while let below = state.chainLink(of: chain[chain.count - 1].name), let node = state.nodes[below.target]?.node { chain.append(node) }
        return chain
    }

    /// The node of an image that a user names by its file.
    /// - Parameter chain: where to look, from the overlay down. The first is not looked at.
    func image(called file: String, in chain: [BlockNode]) -> BlockNode? {
        for (above, node) in zip(chain, chain.dropFirst()) where node.kind != .filter {
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

extension GraphState {
    /// The edge to what shows through in a node.
    func chainLink(of name: String) -> EdgeRecord? {
        nodes[name]?.children.lazy.compactMap { self.edges[$0] }.first { !$0.child.role.isDisjoint(with: [.copyOnWrite, .filtered]) }
    }
}

extension BlockNode {
    /// What to write into an overlay's image so that this node's is found as its backing file.
    /// - Parameters:
    ///   - file: what a user wants there.
    ///   - masksProtocol: what is not an image of a format is called `raw`, whatever it lies on.
    static func backingName(of node: BlockNode?, file: String?, masksProtocol: Bool, names: inout NodeDescriptions) -> (name: String?, format: String?) {
        var image = node
        while let current = image, current.kind == .filter { image = current.chainChild?.node }
        guard let image else { return (file, nil) }
        return (file ?? names.filename(of: image), masksProtocol && image.kind == .protocol ? "raw" : image.formatName)
    }
}
