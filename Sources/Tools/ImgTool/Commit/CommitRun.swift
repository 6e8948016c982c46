import BlockCopy
import BlockGraph
import IOCore
import StrataBase
import ToolSupport

/// Copies into a base what the chain above it holds.
struct CommitRun {
    private let image: OpenImage
    private let base: BlockNode
    private let session: ImageSession
    private let rate: Int?
    private let progress: ProgressReporter

    /// - Parameter base: a node of the image's backing chain.
    init(_ image: OpenImage, into base: BlockNode, in session: ImageSession, rate: Int?, _ progress: ProgressReporter) {
        self.image = image
        self.base = base
        self.session = session
        self.rate = rate
        self.progress = progress
    }

    /// Zeroes among data are left out of the base only in long runs: it is written to, not made.
    private static let sparseUnit = 64 << 10

    /// - Parameter emptying: whether the image holds nothing any more afterwards.
    func run(emptying: Bool) async throws(BlockError) {
        let graph = session.graph
        // The images of a chain were opened for reading.
        let name = base.name
        try await graph.change { change async throws(BlockError) in try change.setReadOnly(false, of: name) }
        let target = try await graph.makeBackend(named: "commit", on: name, PermissionGrant(used: [.consistentRead, .write, .resize], shared: .all))
        do throws(BlockError) {
            try await copy(to: target)
            // The base has it for good before the image forgets it.
            try await target.flush()
        } catch {
            await graph.release(target)
            throw error
        }
        await graph.release(target)
        if emptying, let emptying = image.node.driver as? any Emptying { try await emptying.makeEmpty() }
    }

    private func copy(to target: BlockBackend) async throws(BlockError) {
        let length = image.backend.length
        if target.length < length { try await target.resize(to: length) }
        var settings = CopySettings()
        settings.sparseUnit = Self.sparseUnit
        settings.asksTarget = true
        settings.startsWriteback = true
        settings.writeFlags = image.writeFlags
        let clusterSize = try await base.imageDescribing?.describeImage().clusterSize
        let threads = CopyThreads(IOContext.current ?? session.graph.context, for: length)
        defer { threads.stop() }
        let work = StripeCursor(length: length, stripeSize: settings.pieceSize)
        let copier = BlockCopier(
            ChainSource(image.backend.root, length: length, above: base), to: target.root, clusterSize: clusterSize, work: work, settings,
            gates: [image.backend, target], delegate: CopyWatch(work, rate, progress))
        try await copier.run(on: threads.contexts)
    }
}
