import StrataBase
import Synchronization

/// The nodes and edges that come into being while one tree is opened. They join the graph together or not at all.
final class OpenTransaction: Sendable {
    struct Contents: Sendable {
        /// In order of creation: children before the parents that use them.
        var nodes: [BlockNode] = []
        var edges: [(child: BlockChild, parentNode: String)] = []
        /// Names that are being opened, outermost first: a reference to one of them would be a loop.
        var opening: [String] = []
        /// Backing files that images name and that are being opened: one that names itself, directly or not, would never end.
        var openingImages: Set<String> = []
    }

    let contents = Mutex(Contents())
    /// The nodes of the graph when the transaction began.
    let existing: [String: BlockNode]

    init(existing: [String: BlockNode]) { self.existing = existing }

    func node(named name: String) -> BlockNode? {
        existing[name] ?? contents.withLock { contents in contents.nodes.first { $0.name == name } }
    }

    /// Closes what has been opened, newest first.
    func abandon() async {
        let nodes = contents.withLock { contents in
            let nodes = contents.nodes
            contents = Contents()
            return nodes
        }
        // Nothing was written through these nodes, so closing them has nothing to lose.
        for node in nodes.reversed() { do { try await node.driver.close() } catch {} }
        for node in nodes { node.letGoOfChildren() }
    }
}
