import IOCore
package import QAPIRuntime
package import StorageSchema
package import StrataBase
import Synchronization

/// One node of a graph as requests see it: a driver with its abilities looked up.
///
/// Requests on any thread read this freely: what changes (options, limits) does so only while no request is on the node. Who its parents are
/// and what they may do is the business of `BlockGraph`.
package final class BlockNode: @unchecked Sendable {  // unchecked: `refresh` runs only while drained (Docs/Concurrency.md)
    /// Unique in its graph; at most 31 bytes when a user chose it, `#block` and a number when not.
    package let name: String
    package let driver: any BlockDriver
    package private(set) var options: NodeOptions
    /// The options as a user gave them, or as they were made up for an image's backing file.
    package private(set) var definition: BlockdevOptions?
    /// The node in whose definition this one was defined, and from which it takes what its own does not say.
    package let inheritsFrom: String?
    /// The driver's name, which the driver's type knows.
    package let formatName: String
    package let kind: DriverKind

    // Abilities: what the driver conforms to, looked up once (`DriverAbilities`).
    let flushing: (any Flushing)?
    let zeroWriting: (any ZeroWriting)?
    let discarding: (any Discarding)?
    let resizing: (any Resizing)?
    let statusReporting: (any StatusReporting)?
    let hostFileBacked: (any HostFileBacked)?
    let faultObserving: (any FaultObserving)?
    let draining: (any Draining)?
    /// Whether the node can take part in copies that the kernel makes; whether one succeeds is seen by trying.
    package let copyRanging: (any CopyRanging)?
    private let compressedWriting: (any CompressedWriting)?
    package let checking: (any Checking)?
    package let snapshotting: (any Snapshotting)?
    package let imageDescribing: (any ImageDescribing)?

    /// The driver's limits, looked up when the graph changes and not for each request.
    package private(set) var limits: BlockLimits
    /// Of these what every request needs: a multiple of this it has to be.
    private let alignment: Atomic<Int>
    var requestAlignment: Int { alignment.load(ordering: .relaxed) }
    private let looks = Atomic<Bool>(false)
    /// Whether writes cannot simply be handed on: zeroes are looked for, or a write threshold is set.
    var looksAtWrites: Bool { looks.load(ordering: .relaxed) }
    /// Whether the bytes of a write are looked at before they are written, and not only where they go.
    var looksAtData: Bool { Self.looksAtWrites(options) }
    let threshold = WriteThreshold()
    /// Who notes what is written. Drivers that keep bitmaps in their image know the same list.
    package let bitmaps: DirtyBitmapList

    /// Unaligned writes on their way, which exclude overlapping ones.
    let serializer = RequestSerializer()
    /// Held by whoever writes to the first bytes of an image whose format is a guess (`ProbedRawGuard`).
    let probedHeader = AsyncMutex()
    package let statistics = NodeStatistics()

    /// The driver's own options that tell what the node shows (see `IdentifyingOptions`).
    private(set) var identity: JSONObject
    /// What it was called when it was opened. What queries show is made anew, because graphs change.
    let descriptionWhenOpened: NodeDescription
    /// How far the graph goes down from here. Kept up to date by the graph.
    private let currentHeight: Atomic<Int>

    package init(
        name: String, driver: any BlockDriver, options: NodeOptions, definition: BlockdevOptions? = nil, inheritsFrom: String? = nil,
        identity: JSONObject = JSONObject()
    ) {
        self.name = name
        self.definition = definition
        self.inheritsFrom = inheritsFrom
        self.identity = identity
        self.driver = driver
        self.options = options
        active = Atomic(options.isActive)
        formatName = type(of: driver).formatName
        kind = type(of: driver).kind
        flushing = driver.asFlushing
        zeroWriting = driver.asZeroWriting
        discarding = driver.asDiscarding
        resizing = driver.asResizing
        statusReporting = driver.asStatusReporting
        hostFileBacked = driver.asHostFileBacked
        faultObserving = driver.asFaultObserving
        draining = driver.asDraining
        copyRanging = driver.asCopyRanging
        compressedWriting = driver.asCompressedWriting
        checking = driver.asChecking
        snapshotting = driver.asSnapshotting
        imageDescribing = driver.asImageDescribing
        bitmaps = driver.asBitmapPersisting?.bitmaps ?? DirtyBitmapList()
        let children = driver.children
        descriptionWhenOpened = NodeDescription(
            formatName, kind: kind, identity: identity, backingName: imageDescribing?.backingName, isAlone: options.isAlone,
            parts: children.map { NodeDescription.Part(child: $0, description: $0.node.descriptionWhenOpened) })
        stackHeight = 1 + (children.filter { !$0.role.contains(.copyOnWrite) }.map(\.node.stackHeight).max() ?? 0)
        currentHeight = Atomic(1 + (children.map(\.node.height).max() ?? 0))
        limits = driver.limits
        alignment = Atomic(limits.requestAlignment)
        updateLooks()
        setBitmapsReadOnly()
    }

    /// Takes over the options that the node was reopened with.
    func redefine(_ definition: BlockdevOptions) {
        self.definition = definition
        identity = IdentifyingOptions.of(formatName, definition.json)
    }

    private static func looksAtWrites(_ options: NodeOptions) -> Bool { options.detectZeroes != .off || options.isProbedRaw }

    /// Takes over what a change of the graph means for the node: its own options, and limits that come from nodes below.
    func refresh(_ options: NodeOptions) {
        if options != self.options { self.options = options }
        active.store(options.isActive, ordering: .relaxed)
        updateLooks()
        setBitmapsReadOnly()
        let limits = driver.limits
        if limits == self.limits { return }
        self.limits = limits
        alignment.store(limits.requestAlignment, ordering: .relaxed)
    }

    /// What the node itself knows about the beginning of a range, for drivers that look further down than at their own children. They keep
    /// the range inside the node and not empty.
    package func status(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        try await BlockStatusPipeline.status(self, range, precise: precise)
    }

    /// What a reader finds at the beginning of a range, looking through the backing chain. For jobs that are inside the gates of their backends.
    /// - Parameter base: a layer of the chain at which the search ends: the result's node is `base` when no layer above it decides.
    /// - Precondition: the range is not empty and lies inside the node.
    package func chainStatus(
        of range: GuestRange, above base: BlockNode? = nil, precise: Bool = true
    ) async throws(BlockError) -> (status: BlockStatus, depth: Int, node: BlockNode) {
        try await BlockStatusPipeline.statusThroughChain(self, range, above: base, precise: precise)
    }

    /// How many nodes lie below each other from here on, this one included.
    package var height: Int { currentHeight.load(ordering: .relaxed) }
    func setHeight(_ height: Int) { currentHeight.store(height, ordering: .relaxed) }
    /// The same without what lies behind backing files, when the node was opened: how deep calls go that follow files and filters.
    let stackHeight: Int

    /// Bitmaps of an image that cannot be written to stay as they are.
    private func setBitmapsReadOnly() {
        for bitmap in bitmaps.all where bitmap.isPersistent { bitmap.setReadOnly(options.isReadOnly) }
    }

    private func updateLooks() { looks.store(Self.looksAtWrites(options) || threshold.bytes > 0, ordering: .sequentiallyConsistent) }

    /// To be called when something that changes data is over, successful or not. One load unless somebody notes it.
    func noteWrite(_ range: GuestRange) {
        if !bitmaps.isTracking { return }
        // One that has failed may not have made the node as long as it should.
        let end = min(range.end.rawValue, length)
        if end > range.start.rawValue { bitmaps.note(GuestRange(range.start, byteCount: end - range.start.rawValue)) }
    }

    /// Has the first write that ends beyond `bytes` reported, once. Zero turns it off. Called by the graph, which also changes options.
    func setWriteThreshold(_ bytes: UInt64, _ report: @escaping @Sendable (_ excess: UInt64, _ threshold: UInt64) -> Void) {
        threshold.set(bytes, report)
        updateLooks()
    }

    /// The offset whose writing is reported; 0 for none.
    package var writeThreshold: UInt64 { threshold.bytes }

    /// The size in bytes.
    package var length: Int { driver.length }
    /// How many bytes the node compresses together; nil when it cannot compress.
    package var compressionUnit: Int? { compressedWriting?.compressionUnit }
    package var isReadOnly: Bool { options.isReadOnly }
    /// The node serves requests. Kept apart from the options because every request asks.
    package var isActive: Bool { active.load(ordering: .relaxed) }
    private let active: Atomic<Bool>

    /// - Throws: for an inactive node that is to be the child of an active one.
    func refuseInactive(as child: String, of parent: String) throws(BlockError) {
        if !options.isActive { throw BlockError(.invalidArgument, "Inactive '\(name)' can't be a \(child) child of active '\(parent)'") }
    }
    /// The refusal of somebody who wants to write.
    package var readOnlyError: BlockError { options.readOnlyError(ofNode: name) }
    package var filename: String? { driver.filename }
    package var children: [BlockChild] { driver.children }
    package var primaryChild: BlockChild? { children.first { $0.role.contains(.primary) } }
    package var backingChild: BlockChild? { children.first { $0.role.contains(.copyOnWrite) } }
    /// The child whose data shows through where this node has none of its own.
    package var chainChild: BlockChild? { children.first { !$0.role.isDisjoint(with: [.copyOnWrite, .filtered]) } }
}
