package import BlockGraph
import BlockFilters
import IOCore
package import JobCore
import StorageSchema
package import StrataBase
import Synchronization

// How a mirror comes into the graph and leaves it.

extension MirrorJob {
    /// - Throws: what is wrong with the options, or keeps the job from using the nodes.
    package static func make(_ options: Options, _ job: Job, in graph: BlockGraph) async throws(BlockError) -> MirrorJob {
        let holdings = JobHoldings(graph, job)
        try await graph.change { change throws(BlockError) in try check(options, change) }
        return try await holdings.making { () async throws(BlockError) -> MirrorJob in
            if options.isCommit { try await holdings.makeWritable(options.target) }
            return try await make(options, job, in: graph, holdings)
        }
    }

    private static func make(_ options: Options, _ job: Job, in graph: BlockGraph, _ holdings: JobHoldings) async throws(BlockError) -> MirrorJob {
        let (source, target, filter, driver, gate) = try await graph.change {
            change async throws(BlockError) -> (BlockNode, BlockNode, BlockNode, MirrorFilter, BlockBackend) in
            try check(options, change)
            let (source, target) = (try change.record(options.source).node, try change.record(options.target).node)
            var driver: MirrorFilter?
            let isCommit = options.isCommit
            let filter = try change.insertFilter(
                named: options.filterNodeName, children: [("backing", [.filtered, .primary], source.name), ("target", .data, target.name)]
            ) { children in
                let made = MirrorFilter(children[0], children[1], isCommit: isCommit)
                driver = made
                return made
            }
            guard let driver else { preconditionFailure("the filter was made just now") }
            let gate = holdings.attach(to: filter, .none, in: change)
            // Says who uses the target.
            _ = holdings.attach(to: target, .none, in: change)
            var held = [filter.name, source.name, target.name]
            if options.isCommit {
                for node in try change.chain(from: source.name) {
                    if node === target { break }
                    if node !== source { held.append(node.name) }
                    // What these images show for themselves makes no sense while the base changes.
                    if node !== source { _ = holdings.attach(to: node, PermissionGrant(used: [], shared: [.writeUnchanged, .write]), in: change) }
                }
            }
            for name in held { holdings.block(name, in: change) }
            return (source, target, filter, driver, gate)
        }
        do throws(BlockError) {
            let dirty = try await graph.addBitmap(named: nil, to: source.name, granularity: options.granularity ?? 65536)
            return MirrorJob(options, graph, holdings, source: source, target: target, filter: (filter, driver), gate: gate, dirty: dirty)
        } catch {
            driver.stop()
            try await graph.change { change async throws(BlockError) in
                holdings.detachAll(in: change)
                try change.replace(filter.name, with: source.name)
                change.release(filter.name)
            }
            throw error
        }
    }

    private static func check(_ options: Options, _ change: GraphChange) throws(BlockError) {
        if options.isCommit {
            for node in try change.chain(from: options.source) {
                try change.state.checkNotBlocked(.commitTarget, on: node.name)
                if node.name == options.target { break }
            }
            return
        }
        try change.state.checkNotBlocked(.jobSource, on: options.source)
        try change.state.checkNotBlocked(.jobTarget, on: options.target)
        guard let replaces = options.replaces else { return }
        guard let replaced = change.state.nodes[replaces]?.node else {
            throw BlockError(.notFound, "Failed to find node with node-name='\(replaces)'")
        }
        try change.state.checkNotBlocked(.jobTarget, on: replaces)
        guard shows(try change.record(options.source).node, replaced) else {
            throw BlockError(
                .invalidArgument,
                "Cannot replace '\(replaces)' by a node mirrored from '\(options.source)', because it cannot be guaranteed that doing so would not lead to an "
                    + "abrupt change of visible data")
        }
        if replaced.length != (try change.record(options.target).node.length) {
            throw BlockError(.invalidArgument, "cannot replace image with a mirror image of different size")
        }
    }

    /// Whether a node always shows what another one below it does.
    private static func shows(_ node: BlockNode, _ other: BlockNode) -> Bool {
        if node === other { return true }
        if node.kind == .filter, let below = node.chainChild?.node { return shows(below, other) }
        return node.formatName == "quorum" && node.children.contains { shows($0.node, other) }
    }

    // MARK: The end

    package func prepare(_ job: Job) async throws(BlockError) {
        if state.withLock({ $0.pivots }) { try await leave(for: target) } else { try await leave(for: source) }
    }

    package func abort(_ job: Job) async {
        do throws(BlockError) { try await leave(for: source) } catch { StandardStreams.warn("The filter of \(job.holderName) stays: \(error)") }
    }

    /// Takes the filter out; its users use `heir` from then on, or what replaces another node.
    private func leave(for heir: BlockNode) async throws(BlockError) {
        guard await graph.node(named: filter.node.name) === filter.node else { return }
        filter.driver.stop()
        let (holdings, filter, source, options) = (holdings, filter.node, source, options)
        try await graph.change { change async throws(BlockError) in
            holdings.detachAll(in: change)
            if heir !== source, let replaces = options.replaces, replaces != source.name {
                try change.replace(replaces, with: heir.name)
                try change.replace(filter.name, with: source.name)
            } else {
                try change.replace(filter.name, with: heir.name)
            }
            change.release(filter.name)
            change.refreshPermissions(of: filter.name)
        }
    }

    package func clean(_ job: Job) async {
        await graph.removeBitmap(dirty, from: source.name)
        if let drain = state.withLock({ $0.drain.take() }) { await graph.end(drain) }
        await holdings.release(keepingWritable: state.withLock { $0.pivots } ? target.name : nil)
    }
}
