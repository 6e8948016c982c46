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
            let options = options
            let filter = try change.insertFilter(
                named: options.filterNodeName, children: [("backing", [.filtered, .primary], source.name), ("target", .data, target.name)]
            ) { children in
                let made = MirrorFilter(children[0], children[1], isCommit: options.isCommit, targetStandsOnSource: options.targetStandsOnSource)
                driver = made
                return made
            }
            guard let driver else { preconditionFailure("the filter was made just now") }
            let gate = holdings.attach(to: filter, .none, in: change)
            // Says who uses the target.
            _ = holdings.attach(to: target, .none, in: change)
            for node in [filter, source, target] { holdings.block(node.name, in: change) }
            if options.isCommit {
                for node in try change.chain(from: source.name) {
                    if node === target { break }
                    if node === source { continue }
                    holdings.attachBetween(node, base: target, in: change)
                    holdings.block(node.name, isBetween: true, in: change)
                }
            }
            return (source, target, filter, driver, gate)
        }
        do throws(BlockError) {
            let granularity = if let chosen = options.granularity { chosen } else { try await Self.usualGranularity(for: target) }
            let dirty = try await graph.addBitmap(named: nil, to: source.name, granularity: granularity)
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

    /// The target's clusters, so that none is written in parts, within reason. Source: what qemu-storage-daemon does.
    private static func usualGranularity(for target: BlockNode) async throws(BlockError) -> Int {
        min(max(try await target.clusterSize ?? largestUsualGranularity, smallestUsualGranularity), largestUsualGranularity)
    }

    /// Bytes.
    private static let smallestUsualGranularity = 4096
    private static let largestUsualGranularity = 65536

    /// Whether the nodes are as a mirror needs them. It is said before other things that are wrong with the job.
    /// - Throws: as `make`.
    package static func check(_ options: Options, in graph: BlockGraph) async throws(BlockError) {
        try await graph.change { change throws(BlockError) in try check(options, change) }
    }

    private static func check(_ options: Options, _ change: GraphChange) throws(BlockError) {
        if options.isCommit {
            for node in try change.chain(from: options.source) {
                try change.state.checkNotBlocked(.commitTarget, on: node.name)
                if node.name == options.target { break }
            }
        } else {
            try change.state.checkNotBlocked(.jobSource, on: options.source)
            try change.state.checkNotBlocked(.jobTarget, on: options.target)
            try checkReplaced(options, change)
            if options.sync == .incremental || options.sync == .bitmap {
                throw BlockError(.invalidArgument, "Sync mode '\(options.sync.rawValue)' not supported")
            }
            if let size = options.bufferSize, size < 0 { throw BlockError(.invalidArgument, "Invalid parameter 'buf-size'") }
        }
        if try change.record(options.source).node.image === (try change.record(options.target).node.image) {
            throw BlockError(.invalidArgument, "Can't mirror node into itself")
        }
    }

    private static func checkReplaced(_ options: Options, _ change: GraphChange) throws(BlockError) {
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
        if node.kind == .filter, let below = node.below { return shows(below, other) }
        return node.formatName == "quorum" && node.children.contains { shows($0.node, other) }
    }

    // MARK: The end

    package func prepare(_ job: Job) async throws(BlockError) {
        let heir = state.withLock { $0.pivots } ? target : source
        try await graph.change { [self] change async throws(BlockError) in try leave(for: heir, change) }
    }

    package func abort(_ job: Job) async {
        state.withLock { $0.pivots = false }
        do throws(BlockError) { try await graph.changeRegardless { [self] change throws(BlockError) in try leave(for: source, change) } } catch {
            // What it asks of the nodes below must be what the graph knows.
            filter.driver.goOn()
            StandardStreams.warn("The filter of \(job.holderName) stays: \(error)")
        }
    }

    /// Takes the filter out; its users use `heir` from then on, or what replaces another node.
    private func leave(for heir: BlockNode, _ change: GraphChange) throws(BlockError) {
        guard change.state.nodes[filter.node.name]?.node === filter.node else { return }
        filter.driver.stop()
        holdings.detachAll(in: change)
        if heir !== source, let replaces = options.replaces, replaces != source.name {
            try change.replace(replaces, with: heir.name)
            try change.replace(filter.node.name, with: source.name)
        } else {
            try change.replace(filter.node.name, with: heir.name)
            // Who came to the source itself meanwhile has his writes copied like the others'.
            if heir !== source { try change.replace(source.name, with: heir.name) }
        }
        change.release(filter.node.name)
        change.refreshPermissions(of: filter.node.name)
    }

    package func clean(_ job: Job) async {
        await graph.removeBitmap(dirty, from: source.name)
        if let drain = state.withLock({ $0.drain.take() }) { await graph.end(drain) }
        // The users of a source that they only read from do not write to the target either.
        await holdings.release(keepingWritable: state.withLock { $0.pivots } && !source.isReadOnly ? target.name : nil)
    }
}
