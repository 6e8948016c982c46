package import StorageSchema
package import StrataBase
import Synchronization

/// Something beyond nodes and edges that changes together with a graph: a node that is reopened with other options, for example.
///
/// All three run on the graph's context. Requests that could notice the change are drained from before `prepare` until after `commit` or `abort`.
package protocol ChangeParticipant: AnyObject {
    /// Gets everything ready that can fail. Nothing of it may be visible yet.
    func prepare() async throws(BlockError)
    /// Puts it into force. Cannot fail.
    func commit() async
    /// Forgets what `prepare` has done. Called only if `prepare` has succeeded.
    func abort() async
}

/// A change of a graph while it is being made: a copy of the state to edit, and who else takes part.
///
/// `BlockGraph.change` hands one to a closure. What the closure does here is invisible until it returns; then permissions are computed,
/// requests drained, drivers asked, and all of it is committed at once or none of it. Docs/Permissions.md has the order.
package final class GraphChange {
    package private(set) var state: GraphState
    private(set) var participants: [any ChangeParticipant] = []
    /// Nodes that may have lost their last user.
    private(set) var releasedNodes: [String] = []
    /// Existing nodes that gain or lose children, whose drivers have to follow.
    private(set) var reparented: [String] = []
    private var openings: [OpenTransaction] = []
    private let makeOpener: (_ transaction: OpenTransaction, _ opensChain: Bool) -> NodeOpener

    init(_ state: GraphState, makeOpener: @escaping (OpenTransaction, Bool) -> NodeOpener) {
        self.state = state
        self.makeOpener = makeOpener
    }

    // MARK: Looking

    /// - Throws: `.notFound`.
    package func record(_ name: String) throws(BlockError) -> GraphState.NodeRecord {
        guard let record = state.nodes[name] else { throw BlockError(.notFound, "Cannot find device='\(name)' nor node-name='\(name)'") }
        return record
    }

    // MARK: Nodes

    /// Opens a tree of nodes, which may refer to nodes of the graph by name. If the change fails they are closed again.
    /// - Parameters:
    ///   - isMonitorOwned: whether the root stays when nobody uses it.
    ///   - isProbed: the driver was guessed; a raw image is then kept from looking like another format.
    ///   - inherited: options of the node whose inline child this is.
    ///   - role: what it is going to be there.
    /// - Throws: what is wrong with the options, a file or an image.
    @discardableResult
    package func open(
        _ options: BlockdevOptions, isMonitorOwned: Bool, opensChain: Bool = true, isProbed: Bool = false,
        inheriting inherited: NodeOptions? = nil, role: ChildRole = []
    ) async throws(BlockError) -> BlockNode {
        let transaction = OpenTransaction(existing: state.nodes.mapValues(\.node))
        openings.append(transaction)
        var opener = makeOpener(transaction, opensChain)
        opener.isProbed = isProbed
        let node = try await opener.open(options, inheriting: inherited, role: role)
        let contents = transaction.contents.withLock { $0 }
        for new in contents.nodes { state.insert(new, isMonitorOwned: isMonitorOwned && new === node) }
        for (child, parent) in contents.edges { state.attach(child, owner: .node(parent)) }
        if !isMonitorOwned { releasedNodes.append(node.name) }
        return node
    }

    /// A name for a new node: the one that is asked for, if it is free, or a made-up one.
    func chooseName(_ requested: String?) throws(BlockError) -> String {
        let transaction = OpenTransaction(existing: state.nodes.mapValues(\.node))
        return try makeOpener(transaction, true).chooseName(requested)
    }

    /// Adds a node that is open already, with edges to nodes of the graph.
    func insert(_ node: BlockNode, _ children: [BlockChild]) {
        state.insert(node, isMonitorOwned: false)
        for child in children { state.attach(child, owner: .node(node.name)) }
    }

    /// Says that the node need not stay for its own sake: it goes when nobody uses it.
    package func release(_ name: String) {
        state.setMonitorOwned(name, false)
        releasedNodes.append(name)
    }

    /// Changes the options of a node. Its driver follows through a participant of its own.
    package func setOptions(_ options: NodeOptions, of name: String) { state.setOptions(options, of: name) }

    // MARK: Edges

    /// Gives an existing node a child.
    /// - Throws: `.invalidArgument` when the node would become its own descendant, or `.unsupported` when its driver takes no children.
    @discardableResult
    package func attach(_ target: String, to parent: String, as name: String, role: ChildRole) throws(BlockError) -> GraphState.EdgeID {
        let (below, above) = (try record(target), try record(parent))
        try refuseLoop(from: parent, to: target, name)
        guard above.node.driver is any ChildChanging else { throw BlockError(.unsupported, "The node \(parent) does not support adding a child") }
        if above.options.isActive { try below.node.refuseInactive(as: name, of: parent) }
        let child = BlockChild(name: name, role: role, node: below.node)
        state.attach(child, owner: .node(parent))
        state.disturb(parent)
        reparented.append(parent)
        return child.id
    }

    /// Takes a child from a node, or ends a backend's edge.
    /// - Throws: `.unsupported` when the driver cannot do without; `.permissionConflict` when the link is frozen.
    package func detach(_ id: GraphState.EdgeID) throws(BlockError) {
        guard let edge = state.edges[id] else { return }
        try state.checkNotFrozen(edge)
        if case .node(let parent) = edge.owner {
            guard state.nodes[parent]?.node.driver is any ChildChanging else {
                throw BlockError(.unsupported, "The node \(parent) does not support removing a child")
            }
            state.disturb(parent)
            reparented.append(parent)
        }
        state.detach(id)
        releasedNodes.append(edge.target)
    }

    /// Lets an edge lead to another node. The holder of the edge notices nothing.
    /// - Throws: `.invalidArgument` when a node would become its own descendant; `.permissionConflict` when the link is frozen.
    package func retarget(_ id: GraphState.EdgeID, to target: String) throws(BlockError) {
        guard let edge = state.edges[id], edge.target != target else { return }
        let below = try record(target)
        if case .node(let parent) = edge.owner { try refuseLoop(from: parent, to: target, edge.child.name) }
        try state.checkNotFrozen(edge)
        if case .node(let parent) = edge.owner, state.nodes[parent]?.options.isActive == true {
            try below.node.refuseInactive(as: edge.child.name, of: parent)
        }
        state.retarget(id, to: target)
        releasedNodes.append(edge.target)
    }

    /// Attaches a backend, which may be used when the change is in force.
    /// - Parameters:
    ///   - device: the id under which statistics show it.
    ///   - allowsInactive: the holder can live with an inactive node.
    package func makeBackend(
        named name: String, device: String? = nil, on node: BlockNode, _ grant: PermissionGrant, allowsInactive: Bool = false
    ) -> BlockBackend {
        let root = BlockChild(name: "root", role: [.filtered, .primary], node: node)
        let backend = BlockBackend(name: name, device: device, root: root, allowsInactive: allowsInactive)
        state.attach(backend.root, owner: .backend(backend), grant: grant)
        return backend
    }

    /// Detaches a backend whose requests are over.
    package func detach(_ backend: BlockBackend) {
        guard let edge = state.edges[backend.root.id] else { return }
        state.detach(backend.root.id)
        releasedNodes.append(edge.target)
    }

    package func setGrant(_ grant: PermissionGrant, of backend: BlockBackend) { state.setGrant(grant, of: backend.root.id) }

    private func refuseLoop(from parent: String, to target: String, _ name: String) throws(BlockError) {
        guard state.reaches(from: target, to: parent) else { return }
        throw BlockError(.invalidArgument, "Making '\(target)' a \(name) child of '\(parent)' would create a cycle")
    }

    // MARK: Others that take part

    /// Adds somebody who prepares, commits and aborts together with the change, in the order of adding (aborting: in reverse).
    package func add(_ participant: any ChangeParticipant) { participants.append(participant) }

    /// Keeps requests away from a node while the change is put into force.
    package func drain(_ name: String) { state.disturb(name) }

    /// Has the node's permissions and those below computed anew, because what its driver asks for is going to differ.
    package func refreshPermissions(of name: String) { state.touch(name) }

    package func addBlocker(_ blocker: OperationBlocker, to name: String) { state.addBlocker(blocker, to: name) }
    package func removeBlocker(_ id: OperationBlocker.ID) { state.removeBlocker(id) }

    /// Takes the nodes that nobody needs out of the copy. They are closed by the caller.
    func removeUnused(from names: [String]) -> [BlockNode] { state.removeUnused(from: names) }

    /// Closes what has been opened, for a change that does not come about.
    func abandon() async {
        for opening in openings.reversed() { await opening.abandon() }
    }
}
