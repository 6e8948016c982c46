package import IOCore
package import ManagedObjects
package import StorageSchema
package import StrataBase
import Synchronization

/// A graph of block nodes, and the only place where it changes.
///
/// An actor per graph: one process can hold several that know nothing of each other. Its state is one value (`GraphState`); a change
/// (`BlockGraph+Change.swift`) edits a copy, has the permissions computed on it and the drivers agree, and then assigns it. Because steps of a
/// change await (files are opened, requests drained), whole changes are kept in order by `changes`, a lock first come first served; the actor
/// alone would let them interleave.
package actor BlockGraph {
    package nonisolated let context: IOContext
    package nonisolated let drivers: DriverRegistry
    /// What drivers refer to by id: throttle groups, secrets.
    package nonisolated let objects: ObjectRegistry
    /// The open files that were passed to this process for the nodes of this graph.
    package nonisolated let descriptorSets = DescriptorSets()
    /// Where nodes send their events.
    package nonisolated let events: GraphEvents
    var state = GraphState()
    let changes = AsyncMutex()
    /// Sections during which requests are kept away from some nodes, whatever becomes of the graph meanwhile.
    var drains: [ActiveDrain] = []
    /// Nodes that are writable for the time of a job, and the order of changes to that. Rank: before `changes`.
    var writable: [String: WritableHold] = [:]
    let writableChanges = AsyncMutex()
    private nonisolated let nameCounter = NameCounter()

    // SAFETY: `context` is a stored property, so the executor outlives the actor.
    package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe context.asUnownedSerialExecutor() }

    /// - Parameters:
    ///   - context: runs the graph's control plane. Requests run wherever their backends are used.
    ///   - objects: what the options of nodes refer to by id.
    ///   - events: takes what nodes have to say.
    package init(context: IOContext, drivers: DriverRegistry, objects: ObjectRegistry = ObjectRegistry(), events: GraphEvents = .unheard) {
        self.context = context
        self.drivers = drivers
        self.objects = objects
        self.events = events
    }

    /// Makes up names for nodes that got none.
    private final class NameCounter: Sendable {
        private let next = Atomic<Int>(100)
        func make() -> String { "#block\(next.add(1, ordering: .relaxed).oldValue)" }
    }

    /// A change that begins as the graph is now.
    func beginChange() -> GraphChange { GraphChange(state) { [self] transaction, opensChain in opener(transaction, opensChain: opensChain) } }

    /// What the root of a tree is opened with.
    private nonisolated func opener(_ transaction: OpenTransaction, opensChain: Bool) -> NodeOpener {
        NodeOpener(
            options: NodeOptions(), nodeName: "", opensChain: opensChain, descriptorSets: descriptorSets, registry: drivers, objects: objects, events: events,
            transaction: transaction, makeName: { [nameCounter] in nameCounter.make() })
    }

    // MARK: Adding and removing nodes

    /// Opens a tree of nodes and adds it (blockdev-add).
    /// - Parameters:
    ///   - opensChain: false opens only what describes the image itself, no backing and data files.
    ///   - isProbed: the driver of the root was guessed; a raw image is then kept from looking like another format.
    /// - Returns: the root of the tree.
    /// - Throws: what is wrong with the options, a file or an image; then nothing of the tree remains.
    @discardableResult
    package func add(_ options: BlockdevOptions, opensChain: Bool = true, isProbed: Bool = false) async throws(BlockError) -> BlockNode {
        try await change { change async throws(BlockError) -> BlockNode in
            try await change.open(options, isMonitorOwned: true, opensChain: opensChain, isProbed: isProbed)
        }
    }

    /// Removes a node that was added by `add` (blockdev-del), and whatever below it nobody else uses.
    /// - Throws: `.notFound`, or `.permissionConflict` while it is in use.
    package func remove(nodeNamed name: String) async throws(BlockError) {
        try await change { change async throws(BlockError) in try Self.remove(name, in: change) }
    }

    /// Detaches a backend and removes its node with it: both, or neither while somebody else uses the node.
    /// - Parameter backend: makes no new requests; those still running are waited for.
    package func remove(_ backend: BlockBackend) async throws(BlockError) {
        await DrainedSection.waitUntilIdle([backend])
        try await changeRegardless { change throws(BlockError) in
            change.detach(backend)
            try Self.remove(backend.nodeName, in: change)
        }
    }

    private static func remove(_ name: String, in change: GraphChange) throws(BlockError) {
        guard let record = change.state.nodes[name] else { throw BlockError(.notFound, "Failed to find node with node-name='\(name)'") }
        if let blocker = record.blockers.first(where: \.isToldFirst) { throw blocker.refusal(for: name) }
        let parents = record.parents.compactMap { change.state.edges[$0] }
        if let edge = parents.first(where: { if case .backend = $0.owner { true } else { false } }) {
            throw BlockError(.permissionConflict, "Node \(name) is in use", hint: PermissionAdvice.hint(user: edge, change.state))
        }
        try change.state.checkNotBlocked(.delete, on: name)
        guard record.isMonitorOwned else { throw BlockError(.invalidArgument, "Node \(name) is not owned by the monitor") }
        if let edge = parents.first {
            throw BlockError(.permissionConflict, "Block device \(name) is in use", hint: PermissionAdvice.hint(user: edge, change.state))
        }
        change.release(name)
    }

    // MARK: Backends

    /// Attaches a root edge to a node, for an export, a tool or a job.
    /// - Parameters:
    ///   - name: how the holder is called in messages, `block export 'x'`.
    ///   - device: the id under which statistics show it; nil for holders that nobody asks about.
    ///   - grant: what it is going to do and what it tolerates.
    ///   - allowsInactive: the holder can live with an inactive node, and with one that becomes inactive.
    /// - Throws: `.notFound`, `.permissionConflict`, `.readOnly`.
    package func makeBackend(
        named name: String, device: String? = nil, on nodeName: String, _ grant: PermissionGrant, allowsInactive: Bool = false
    ) async throws(BlockError) -> BlockBackend {
        try await change { change async throws(BlockError) -> BlockBackend in
            guard let record = change.state.nodes[nodeName] else {
                throw BlockError(.notFound, "Cannot find device='' nor node-name='\(nodeName)'")
            }
            Trace.graphAttachBackend(backend: name, node: nodeName)
            return change.makeBackend(named: name, device: device, on: record.node, grant, allowsInactive: allowsInactive)
        }
    }

    /// Changes what a backend does and tolerates.
    package func setGrant(_ grant: PermissionGrant, of backend: BlockBackend) async throws(BlockError) {
        try await change { change async throws(BlockError) in change.setGrant(grant, of: backend) }
    }

    /// Detaches a backend. Its requests must be over; those still running are waited for.
    package func release(_ backend: BlockBackend) async {
        await changes.withLock { () async in
            await DrainedSection.waitUntilIdle([backend])
            Trace.graphReleaseBackend(backend: backend.name, node: backend.node.name)
            guard state.edges[backend.root.id] != nil else { return }
            await giveUp { change in change.detach(backend) }
        }
    }

    // MARK: Asking

    /// Everything about the graph as it is now; later changes do not show in it.
    package var snapshot: GraphState { state }

    package func node(named name: String) -> BlockNode? { state.nodes[name]?.node }

    /// Every node in the order in which they were added.
    package var allNodes: [BlockNode] { state.order.compactMap { state.nodes[$0]?.node } }

    /// Whether no other node is built on a node.
    package func isRoot(_ name: String) -> Bool {
        state.nodes[name]?.parents.allSatisfy { id in if case .node? = state.edges[id]?.owner { false } else { true } } ?? false
    }

    /// Whether anybody holds the node.
    package func isInUse(_ name: String) -> Bool { !(state.nodes[name]?.parents.isEmpty ?? true) }

    /// What all parents of a node need and tolerate together.
    package func permissions(ofNodeNamed name: String) -> PermissionGrant? { state.nodes[name]?.cumulative }

    /// Runs `body` while the graph keeps its shape; requests go on.
    package func withoutChanges<Result: Sendable>(_ body: () async throws(BlockError) -> Result) async throws(BlockError) -> Result {
        try await changes.withLock { () async throws(BlockError) -> Result in try await body() }
    }

    // MARK: The end

    /// Closes every node, parents before children. Backends must have been released.
    /// - Throws: the first failure to write metadata out; the other nodes are closed nevertheless.
    package func closeAll() async throws(BlockError) {
        try await changes.withLock { () async throws(BlockError) in
            var firstFailure: BlockError?
            let nodes = state.topologicalOrder(from: state.order).compactMap { state.nodes[$0]?.node }
            for node in nodes {
                Trace.graphNodeCloseBegin(node: node.name)
                do throws(BlockError) { try await node.driver.close() } catch { firstFailure = firstFailure ?? error.during("Closing node '\(node.name)'") }
                Trace.graphNodeCloseEnd(node: node.name)
            }
            state = GraphState()
            for node in nodes { node.letGoOfChildren() }
            if let firstFailure { throw firstFailure }
        }
    }
}
