package import BlockGraph
package import StorageSchema
package import StrataBase

/// Which images a commit is about, from what a user says.
package struct CommitRange: Sendable {
    /// The highest node that is committed.
    package let top: String
    /// The node that is written to.
    package let base: String
    /// The top is what users of the chain see.
    package let isActive: Bool

    /// - Throws: what is wrong, in QEMU's words.
    package init(_ arguments: BlockCommitArguments, _ change: GraphChange) throws(BlockError) {
        let device = arguments.device
        try change.checkIsRoot(device)
        let chain = try change.chain(from: device)
        if arguments.topNode != nil, arguments.top != nil { throw BlockError(.invalidArgument, "'top-node' and 'top' are mutually exclusive") }
        var top = chain[0]
        if let name = arguments.topNode {
            top = try change.node(named: name)
            guard chain.contains(where: { $0 === top }) else { throw Self.outside(name) }
        } else if let file = arguments.top, file != chain[0].filename {
            guard let found = change.image(called: file, in: chain) else { throw BlockError(.notFound, "Top image file \(file) not found") }
            top = found
        }
        if arguments.baseNode != nil, arguments.base != nil { throw BlockError(.invalidArgument, "'base-node' and 'base' are mutually exclusive") }
        let below = try change.chain(from: top.name)
        var base = below.last { $0.kind != .filter || below.count == 1 } ?? top
        if let name = arguments.baseNode {
            base = try change.node(named: name)
            guard below.contains(where: { $0 === base }) else { throw Self.outside(name) }
        } else if let file = arguments.base {
            guard let found = change.image(called: file, in: below) else { throw BlockError(.notFound, "Can't find '\(file)' in the backing chain") }
            base = found
        }
        for node in below {
            try change.state.checkNotBlocked(.commitTarget, on: node.name)
            if node === base { break }
        }
        if top === base { throw BlockError(.invalidArgument, "cannot commit an image into itself") }
        // Over the active image there are at most filters.
        let above = chain.prefix { $0 !== top }
        isActive = above.allSatisfy { $0.kind == .filter }
        if isActive, below.first(where: { $0.kind != .filter }) === base { throw BlockError(.invalidArgument, "Can't mirror node into itself") }
        if isActive, arguments.backingFile != nil {
            throw BlockError(.invalidArgument, "'backing-file' specified, but 'top' is the active layer")
        }
        self.top = isActive ? device : top.name
        self.base = base.name
    }

    private static func outside(_ name: String) -> BlockError { BlockError(.invalidArgument, "'\(name)' is not in this backing file chain") }
}
