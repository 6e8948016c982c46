import BlockCopy
package import BlockGraph
import BlockFilters
import IOCore
package import JobCore
package import StorageSchema
package import StrataBase

/// Copies what an image's backing files have into the image, so that it stands on one further down, or on none (block-stream).
///
/// A copy-on-read filter over the image does the copying: reading through it is all that the job does, and what guests read is copied as well.
package final class StreamJob: JobDriver {
    package static var type: JobType { .stream }

    private let graph: BlockGraph
    private let holdings: JobHoldings
    private let top: BlockNode
    /// The last image whose data is copied; nil when there is nothing below the image.
    private let bottom: BlockNode?
    /// There is an image between this one and the base.
    private let hasWork: Bool
    /// Where reading copies.
    private let filter: (node: BlockNode, backend: BlockBackend)
    private let options: Options

    package struct Options: Sendable {
        package var device: String
        package var base: String?
        package var baseNode: String?
        package var bottom: String?
        package var backingFile: String?
        package var masksProtocol = false
        package var onError = BlockdevOnError.report
        package var filterNodeName: String?
        package init(device: String) { self.device = device }
    }

    /// Pieces that workers take, in bytes.
    private static let pieceSize = 1 << 20

    // MARK: Making

    /// - Throws: what is wrong with the options, or keeps the job from using the nodes.
    package static func make(_ options: Options, _ job: Job, in graph: BlockGraph) async throws(BlockError) -> StreamJob {
        let holdings = JobHoldings(graph, job)
        // What is wrong with the options is said before anything is touched.
        try await graph.change { change throws(BlockError) in _ = try find(options, change) }
        return try await holdings.making { () async throws(BlockError) -> StreamJob in
            try await holdings.makeWritable(options.device)
            return try await make(options, job, in: graph, holdings)
        }
    }

    private static func make(_ options: Options, _ job: Job, in graph: BlockGraph, _ holdings: JobHoldings) async throws(BlockError) -> StreamJob {
        try await graph.change { change async throws(BlockError) -> StreamJob in
            let (chain, bottomIndex) = try find(options, change)
            let (top, bottom) = (chain[0], bottomIndex.map { chain[$0] })
            let cor = BlockdevOptions(
                .copyOnRead(BlockdevOptionsCor(file: .reference(top.name), bottom: (bottom ?? top.image).name)), nodeName: options.filterNodeName, readOnly: false)
            let node: BlockNode
            do throws(BlockError) {
                node = try await change.insertFilter(cor, above: top.name, isMonitorOwned: false)
            } catch { throw error.during("Could not create node") }
            let hasWork = (bottomIndex ?? 0) > 0
            let used: BlockPermissions = hasWork ? [.consistentRead, .writeUnchanged] : []
            let backend = holdings.attach(to: node, PermissionGrant(used: used, shared: .all), in: change)
            holdings.block(node.name, in: change)
            // Nobody changes what is being copied.
            for node in chain[...(bottomIndex ?? 0)].dropFirst() {
                _ = holdings.attach(to: node, PermissionGrant(used: [], shared: [.consistentRead, .writeUnchanged]), in: change)
            }
            for node in chain[...(bottomIndex ?? 0)] { holdings.block(node.name, in: change) }
            return StreamJob(graph, holdings, top, bottom, hasWork, (node, backend), options)
        }
    }

    private init(
        _ graph: BlockGraph, _ holdings: JobHoldings, _ top: BlockNode, _ bottom: BlockNode?, _ hasWork: Bool, _ filter: (BlockNode, BlockBackend),
        _ options: Options
    ) {
        self.graph = graph
        self.holdings = holdings
        self.top = top
        self.bottom = bottom
        self.hasWork = hasWork
        self.filter = filter
        self.options = options
    }

    /// The chain from the image down, and which of it is the last one to be copied; nil when nothing lies below the image.
    private static func find(_ options: Options, _ change: GraphChange) throws(BlockError) -> ([BlockNode], Int?) {
        let device = options.device
        if options.base != nil, options.baseNode != nil { throw exclusive("base", "base-node") }
        if options.base != nil, options.bottom != nil { throw exclusive("base", "bottom") }
        if options.bottom != nil, options.baseNode != nil { throw exclusive("bottom", "base-node") }
        let chain = try change.chain(from: device)
        var bottom: Int? = chain.count > 1 ? chain.count - 1 : nil
        if let name = options.bottom {
            let node = try change.node(named: name)
            if node.kind == .filter { throw BlockError(.invalidArgument, "Node '\(name)' is a filter, use a non-filter node as 'bottom'") }
            guard let index = chain.firstIndex(where: { $0 === node }) else {
                throw BlockError(.invalidArgument, "Node '\(name)' is not in a chain starting from '\(device)'")
            }
            bottom = index
        } else if let file = options.base {
            guard let node = change.image(called: file, in: chain), let index = chain.firstIndex(where: { $0 === node }) else {
                throw BlockError(.notFound, "Can't find '\(file)' in the backing chain")
            }
            bottom = lastImage(above: index, chain)
        } else if let name = options.baseNode {
            let node = try change.node(named: name)
            guard let index = chain.firstIndex(where: { $0 === node }), index > 0 else {
                throw BlockError(.invalidArgument, "Node '\(name)' is not a backing image of '\(device)'")
            }
            bottom = lastImage(above: index, chain)
        }
        for node in chain[...(bottom ?? 0)] { try change.state.checkNotBlocked(.jobSource, on: node.name) }
        if options.backingFile != nil, (bottom ?? 0) == chain.count - 1 {
            throw BlockError(.invalidArgument, "backing file specified, but streaming the entire chain")
        }
        // The lowest node of a chain without base may be a filter's file: what counts is the image.
        while let index = bottom, index > 0, chain[index].kind == .filter { bottom = index - 1 }
        return (chain, bottom)
    }

    private static func lastImage(above index: Int, _ chain: [BlockNode]) -> Int {
        var last = index - 1
        while last > 0, chain[last].kind == .filter { last -= 1 }
        return last
    }

    private static func exclusive(_ one: String, _ other: String) -> BlockError {
        BlockError(.invalidArgument, "'\(one)' and '\(other)' cannot be specified at the same time")
    }

    // MARK: Copying

    package func run(_ job: Job) async throws(BlockError) {
        guard hasWork else { return }
        let length = top.length
        job.progress.restart(total: length)
        let threads = CopyThreads(beside: job.context, for: length)
        defer { threads.stop() }
        let source = StreamSource(filter.backend.root, top: top, bottom: bottom, jobID: job.id)
        let work = StripeCursor(length: length, stripeSize: Self.pieceSize)
        let copying = JobCopying(job, onReadError: options.onError, onWriteError: nil)
        var settings = CopySettings()
        settings.pieceSize = Self.pieceSize
        settings.usesCopyRange = true
        settings.startsWriteback = true
        // Reading copies, so what is read from is what is written to.
        let copier = BlockCopier(source, to: filter.backend.root, work: work, settings, gates: [filter.backend], delegate: copying)
        var ignored: BlockError?
        while work.done < length {
            try await job.waitForRate()
            guard let failure = try await copying.round(copier, on: threads.contexts) else { continue }
            ignored = ignored ?? failure.error
            source.giveUp(failure.range)
        }
        if let ignored { throw job.reported(ignored) }
    }

    // MARK: The end

    package func prepare(_ job: Job) async throws(BlockError) {
        // The filter keeps the chain as it is, so it goes first.
        try await graph.change { [self] change async throws(BlockError) in try removeFilter(change) }
        guard let bottom else { return }
        let base = bottom.below
        var names = NodeDescriptions()
        let (name, format) = BlockNode.backingName(of: base, file: options.backingFile, masksProtocol: options.masksProtocol, names: &names)
        guard top.backingChild != nil else { return }
        try await graph.storeBackingName(name, format: format, in: top, by: job.holderName)
        try await graph.change { change async throws(BlockError) in
            holdings.detachAll(in: change)
            guard let edge = change.state.child(named: "backing", of: top.name) else { return }
            // What lies below now: a filter there may have gone meanwhile.
            if let base = bottom.below { try change.retarget(edge.child.id, to: base.name) } else { try change.detach(edge.child.id) }
        }
    }

    private func removeFilter(_ change: GraphChange) throws(BlockError) {
        guard change.state.nodes[filter.node.name]?.node === filter.node else { return }
        change.detach(filter.backend)
        try change.removeFilter(filter.node.name)
    }

    package func abort(_ job: Job) async {
        do throws(BlockError) { try await graph.changeRegardless { [self] change throws(BlockError) in try removeFilter(change) } } catch {
            StandardStreams.warn("The filter of \(job.holderName) stays: \(error)")
        }
    }

    package func clean(_ job: Job) async { await holdings.release() }
}
