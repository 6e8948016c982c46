import BlockCopy
package import BlockGraph
import BlockFilters
import IOCore
package import JobCore
package import StorageSchema
package import StrataBase

/// Writes what an image and those below it have into one further down, and takes them out of the chain (block-commit of an image that is not the
/// active one). The active one is committed by a mirror: see `MirrorJob`.
package final class CommitJob: JobDriver {
    package static var type: JobType { .commit }

    private let graph: BlockGraph
    private let holdings: JobHoldings
    private let filter: BlockNode
    private let top: BlockBackend
    private let base: BlockBackend
    /// The highest node that shows what the base does: the base, or a filter on it.
    private let roof: BlockNode
    private let options: Options

    package struct Options: Sendable {
        package var top: String
        package var base: String
        package var backingFile: String?
        package var masksProtocol = false
        package var onError = BlockdevOnError.report
        package var filterNodeName: String?
        package init(top: String, base: String) {
            self.top = top
            self.base = base
        }
    }

    /// Pieces that workers take, in bytes.
    private static let pieceSize = 1 << 20

    /// - Throws: what keeps the job from using the nodes; a base that cannot be written to.
    package static func make(_ options: Options, _ job: Job, in graph: BlockGraph) async throws(BlockError) -> CommitJob {
        let holdings = JobHoldings(graph, job)
        try await graph.change { change throws(BlockError) in _ = try find(options, change) }
        return try await holdings.making { () async throws(BlockError) -> CommitJob in
            try await holdings.makeWritable(options.base)
            return try await make(options, job, in: graph, holdings)
        }
    }

    /// The chain from the top down to the base, which is its last.
    private static func find(_ options: Options, _ change: GraphChange) throws(BlockError) -> ArraySlice<BlockNode> {
        let chain = try change.chain(from: options.top)
        guard let end = chain.firstIndex(where: { $0.name == options.base }), end > 0 else {
            throw BlockError(.invalidArgument, "'\(options.base)' is not in this backing file chain")
        }
        for node in chain[...end] { try change.state.checkNotBlocked(.commitTarget, on: node.name) }
        if chain[0].image === chain[end].image { throw BlockError(.invalidArgument, "Invalid files for merge: top and base are the same") }
        return chain[...end]
    }

    private static func make(_ options: Options, _ job: Job, in graph: BlockGraph, _ holdings: JobHoldings) async throws(BlockError) -> CommitJob {
        try await graph.change { change async throws(BlockError) -> CommitJob in
            let chain = try find(options, change)
            let end = chain.count - 1
            let filter = try change.insertFilter(named: options.filterNodeName, children: [("backing", [.filtered, .primary], options.top)], isReadOnly: true) {
                CommitFilter($0[0], base: chain[end].name)
            }
            _ = holdings.attach(to: filter, .none, in: change)
            let top = holdings.attach(to: chain[0], .none, in: change)
            for node in chain[..<end] { holdings.attachBetween(node, base: chain[end], in: change) }
            let isShort = chain[end].length < chain[0].length
            let grant = PermissionGrant(used: isShort ? [.consistentRead, .write, .resize] : [.consistentRead, .write], shared: [.consistentRead, .writeUnchanged])
            let base = holdings.attach(to: chain[end], grant, in: change)
            for node in [filter, chain[0], chain[end]] { holdings.block(node.name, in: change) }
            for node in chain[1..<end] { holdings.block(node.name, isBetween: true, in: change) }
            let roof = chain.first { $0.image === chain[end].image } ?? chain[end]
            return CommitJob(graph, holdings, filter, top, base, roof, options)
        }
    }

    private init(
        _ graph: BlockGraph, _ holdings: JobHoldings, _ filter: BlockNode, _ top: BlockBackend, _ base: BlockBackend, _ roof: BlockNode, _ options: Options
    ) {
        self.graph = graph
        self.holdings = holdings
        self.filter = filter
        self.top = top
        self.base = base
        self.roof = roof
        self.options = options
    }

    package func run(_ job: Job) async throws(BlockError) {
        let length = top.length
        job.progress.restart(total: length)
        if base.length < length { try await base.resize(to: length) }
        var settings = CopySettings()
        // Nobody writes to the images that are copied from.
        settings.sourceIsStable = true
        settings.asksTarget = true
        settings.startsWriteback = true
        let threads = CopyThreads(beside: job.context, for: length)
        defer { threads.stop() }
        let work = StripeCursor(length: length, stripeSize: Self.pieceSize)
        let copying = JobCopying(job, onReadError: options.onError, onWriteError: options.onError)
        let copier = BlockCopier(
            ChainSource(top.root, length: length, above: roof), to: base.root, work: work, settings, gates: [top, base], delegate: copying)
        while work.done < length {
            try await job.waitForRate()
            Trace.chainRoundBegin(job: job.id, bytes: length - work.done)
            defer { Trace.chainRoundEnd(job: job.id, bytes: length - work.done) }
            try await copying.round(copier, on: threads.contexts)
        }
        try await job.pausePoint()
        try await base.flush()
    }

    package func prepare(_ job: Job) async throws(BlockError) {
        let base = base.node
        let state = await graph.snapshot
        let overlays = (state.nodes[filter.name]?.parents ?? []).compactMap { id -> BlockNode? in
            guard let edge = state.edges[id], edge.child.role.contains(.copyOnWrite), case .node(let name) = edge.owner else { return nil }
            return state.nodes[name]?.node
        }
        var names = NodeDescriptions()
        let (name, format) = BlockNode.backingName(of: base, file: options.backingFile, masksProtocol: options.masksProtocol, names: &names)
        for overlay in overlays { try await store(name, format, in: overlay, job) }
        try await graph.change { change async throws(BlockError) in
            holdings.detachAll(in: change)
            try change.replace(filter.name, with: base.name)
            change.release(filter.name)
        }
    }

    /// An overlay that is read-only is made writable for this.
    private func store(_ name: String?, _ format: String?, in overlay: BlockNode, _ job: Job) async throws(BlockError) {
        guard overlay.driver is any BackingFileNaming else { return }
        try await graph.withWritable(overlay) { () async throws(BlockError) in
            try await graph.storeBackingName(name, format: format, in: overlay, by: job.holderName)
        }
    }

    package func abort(_ job: Job) async {
        do throws(BlockError) {
            try await graph.changeRegardless { change throws(BlockError) in
                holdings.detachAll(in: change)
                try change.removeFilter(filter.name)
            }
        } catch { StandardStreams.warn("The filter of \(job.holderName) stays: \(error)") }
    }

    package func clean(_ job: Job) async { await holdings.release() }
}
