package import IOCore
package import ManagedObjects
package import StorageSchema
package import StrataBase
import Synchronization

/// A graph of block nodes, and the only place where it changes.
///
/// An actor per graph: one process can hold several that know nothing of each other. Its state is one value (`GraphState`); a change edits a
/// copy, has the permissions computed on it and the drivers agree, and then assigns it. Because steps of a change await (files are opened,
/// requests drained), whole changes are kept in order by `changes`, a lock first come first served; the actor alone would let them interleave.
package actor BlockGraph {
    package nonisolated let context: IOContext
    package nonisolated let drivers: DriverRegistry
    /// What drivers refer to by id: throttle groups, secrets.
    package nonisolated let objects: ObjectRegistry
    private var state = GraphState()
    private let changes = AsyncMutex()
    private nonisolated let nameCounter = NameCounter()

    // SAFETY: `context` is a stored property, so the executor outlives the actor.
    package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe context.asUnownedSerialExecutor() }

    /// - Parameters:
    ///   - context: runs the graph's control plane. Requests run wherever their backends are used.
    ///   - objects: what the options of nodes refer to by id.
    package init(context: IOContext, drivers: DriverRegistry, objects: ObjectRegistry = ObjectRegistry()) {
        self.context = context
        self.drivers = drivers
        self.objects = objects
    }

    /// Makes up names for nodes that got none.
    private final class NameCounter: Sendable {
        private let next = Atomic<Int>(100)
        func make() -> String { "#block\(next.add(1, ordering: .relaxed).oldValue)" }
    }

    // MARK: Adding and removing nodes

    /// Opens a tree of nodes and adds it (blockdev-add).
    /// - Parameter opensChain: false opens only what describes the image itself, no backing and data files.
    /// - Returns: the root of the tree.
    /// - Throws: what is wrong with the options, a file or an image; then nothing of the tree remains.
    @discardableResult
    package func add(_ options: BlockdevOptions, opensChain: Bool = true) async throws(BlockError) -> BlockNode {
        try await changes.withLock { () async throws(BlockError) -> BlockNode in
            let transaction = OpenTransaction(existing: state.nodes.mapValues(\.node))
            do throws(BlockError) {
                let opener = NodeOpener(
                    options: NodeOptions(), nodeName: "", opensChain: opensChain, registry: drivers, objects: objects, transaction: transaction,
                    makeName: { [nameCounter] in nameCounter.make() })
                let node = try await opener.open(options, inheriting: nil, role: [])
                var next = state
                let contents = transaction.contents.withLock { $0 }
                for new in contents.nodes { next.insert(new, isMonitorOwned: new === node) }
                for (child, parent) in contents.edges { next.attach(child, owner: .node(parent)) }
                try await install(next)
                return node
            } catch {
                await transaction.abandon()
                throw error
            }
        }
    }

    /// Removes a node that was added by `add` (blockdev-del), and whatever below it nobody else uses.
    /// - Throws: `.notFound`, or `.permissionConflict` while it is in use.
    package func remove(nodeNamed name: String) async throws(BlockError) {
        try await changes.withLock { () async throws(BlockError) in
            guard let record = state.nodes[name] else { throw BlockError(.notFound, "Failed to find node with node-name='\(name)'") }
            guard record.isMonitorOwned else { throw BlockError(.invalidArgument, "Node \(name) is not owned by the monitor") }
            if let id = record.parents.first, let edge = state.edges[id] {
                throw BlockError(.permissionConflict, "Block device \(name) is in use: \(state.describe(edge))")
            }
            var next = state
            next.setMonitorOwned(name, false)
            try await drop(from: name, in: next)
        }
    }

    /// Takes unused nodes out of `next`, installs it and closes them.
    private func drop(from name: String, in next: GraphState) async throws(BlockError) {
        var next = next
        let removed = next.removeUnused(from: name)
        let section = await DrainedSection.begin(state.backends(above: removed.map(\.name)))
        defer { section.end() }
        // Parents first: a format writes its metadata through its file while that still has its permissions.
        var firstFailure: BlockError?
        for node in removed {
            do throws(BlockError) { try await node.driver.close() } catch { firstFailure = firstFailure ?? error.during("Closing node '\(node.name)'") }
        }
        // Only afterwards do other parents of what remains gain what the removed ones have held.
        try await install(next)
        if let firstFailure { StandardStreams.warn(firstFailure.description) }
    }

    // MARK: Backends

    /// Attaches a root edge to a node, for an export, a tool or a job.
    /// - Parameters:
    ///   - name: how the holder is called in messages, `block export 'x'`.
    ///   - grant: what it is going to do and what it tolerates.
    /// - Throws: `.notFound`, `.permissionConflict`, `.readOnly`.
    package func makeBackend(named name: String, on nodeName: String, _ grant: PermissionGrant) async throws(BlockError) -> BlockBackend {
        try await changes.withLock { () async throws(BlockError) -> BlockBackend in
            guard let record = state.nodes[nodeName] else {
                throw BlockError(.notFound, "Cannot find device='' nor node-name='\(nodeName)'")
            }
            let root = BlockChild(name: "root", role: [.filtered, .primary], node: record.node)
            let backend = BlockBackend(name: name, root: root)
            var next = state
            next.attach(root, owner: .backend(backend), grant: grant)
            try await install(next)
            return backend
        }
    }

    /// Changes what a backend does and tolerates.
    package func setGrant(_ grant: PermissionGrant, of backend: BlockBackend) async throws(BlockError) {
        try await changes.withLock { () async throws(BlockError) in
            var next = state
            next.setGrant(grant, of: backend.root.id)
            try await install(next)
        }
    }

    /// Detaches a backend. Its requests must be over; those still running are waited for.
    package func release(_ backend: BlockBackend) async {
        await changes.withLock { () async in
            await backend.waitUntilIdle()
            guard let edge = state.edges[backend.root.id] else { return }
            var next = state
            next.detach(backend.root.id)
            // Giving permissions up cannot conflict; a node that fails to give something back keeps working with more than it needs.
            do { try await drop(from: edge.target, in: next) } catch { StandardStreams.warn("Releasing \(backend.name): \(error)") }
        }
    }

    // MARK: Putting a change into force

    /// Computes the permissions of `next`, lets the drivers prepare for them, and makes `next` the state.
    /// On failure the drivers are told to forget it and the state is as before.
    private func install(_ next: GraphState) async throws(BlockError) {
        var next = next
        try next.refreshPermissions()
        // Parents before children for what is newly needed would also do; what matters is that all have agreed before one commits.
        let changed = next.order.filter { name in next.nodes[name]?.cumulative != state.nodes[name]?.cumulative }
        // A driver may exchange its file when writing begins or ends: no request may be on it then.
        let exchanging = changed.filter { name in
            guard let old = state.nodes[name]?.cumulative.used, let new = next.nodes[name]?.cumulative.used else { return false }
            return old.symmetricDifference(new).contains(.write) || old.symmetricDifference(new).contains(.resize)
        }
        let section = await DrainedSection.begin(state.backends(above: exchanging))
        defer { section.end() }
        var prepared: [BlockNode] = []
        do throws(BlockError) {
            for name in changed {
                guard let record = next.nodes[name] else { continue }
                try await record.node.driver.preparePermissions(record.cumulative)
                prepared.append(record.node)
            }
        } catch {
            for node in prepared.reversed() { await node.driver.abortPermissions() }
            throw error
        }
        for edge in next.edges.values { edge.child.grant(edge.grant.used) }
        for node in prepared { await node.driver.commitPermissions() }
        state = next
    }

    // MARK: Asking

    package func node(named name: String) -> BlockNode? { state.nodes[name]?.node }

    /// Every node in the order in which they were added.
    package var allNodes: [BlockNode] { state.order.compactMap { state.nodes[$0]?.node } }

    /// Whether anybody holds the node.
    package func isInUse(_ name: String) -> Bool { !(state.nodes[name]?.parents.isEmpty ?? true) }

    /// What all parents of a node need and tolerate together.
    package func permissions(ofNodeNamed name: String) -> PermissionGrant? { state.nodes[name]?.cumulative }

    // MARK: Draining and the end

    /// Runs `body` while no request is on any of the named nodes or below the backends above them.
    package func withDrained<Result: Sendable>(_ names: [String], _ body: () async throws(BlockError) -> Result) async throws(BlockError) -> Result {
        try await changes.withLock { () async throws(BlockError) -> Result in
            let section = await DrainedSection.begin(state.backends(above: names))
            defer { section.end() }
            return try await body()
        }
    }

    /// Closes every node, parents before children. Backends must have been released.
    /// - Throws: the first failure to write metadata out; the other nodes are closed nevertheless.
    package func closeAll() async throws(BlockError) {
        try await changes.withLock { () async throws(BlockError) in
            var firstFailure: BlockError?
            for name in state.topologicalOrder(from: state.order) {
                guard let node = state.nodes[name]?.node else { continue }
                do throws(BlockError) { try await node.driver.close() } catch { firstFailure = firstFailure ?? error.during("Closing node '\(name)'") }
            }
            state = GraphState()
            if let firstFailure { throw firstFailure }
        }
    }
}
