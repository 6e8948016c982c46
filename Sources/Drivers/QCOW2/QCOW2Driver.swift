import BlockEncryption
package import BlockGraph
import IOCore
import StorageSchema
package import StrataBase
import Synchronization

/// The qcow2 format. This file is the map of the room: what an open image holds, and which file does what with it.
///
/// - `Format/` bytes and meanings, no I/O. `Open/` opening, creating, header validation.
/// - `Mapping/` guest offset to extent. `Metadata/` the slice cache, reading it, writing everything back in order.
/// - `Allocation/` reserve, copy on write, publish. `Refcounts/` which host clusters are free, and how they become so.
/// - `IO/` the requests, compressed ones among them. `Check/` whether the image is consistent. `Snapshots/` what is kept inside the image.
/// - `Bitmaps/` dirty bitmaps in the image.
///
/// **Locks**, outermost first; each is held only while taking those below it:
/// `preparation`, `BitmapStore.lock`, `resizing`, `tables`, `commits`, `refcountTableGrowth`, `refcountLoads`, `refcountWrites`, `fileGrowth`, `headerWrites`; `keySlotChanges` by itself (all may
/// span metadata I/O, never guest data), and innermost `state`, which spans nothing.
package final class QCOW2Driver: BlockDriver, ChildChanging, @unchecked Sendable {
    // unchecked: `options`, `candidate`, `opened` and `geometry` change only while no request runs (Reopening, Activating, Amending).

    package static let formatName = "qcow2"
    package static let kind = DriverKind.format
    package static let supportsBacking = true

    let file: BlockChild
    /// Where guest data lies when it lies outside of the image; nil for an image without a data file, and where only metadata is wanted.
    let externalData: BlockChild?
    /// Where guest data lies.
    var dataFile: BlockChild { externalData ?? file }
    /// The backing file, which may come, go and change while no request runs.
    private let backingSlot: ChildSlot
    var backing: BlockChild? { backingSlot.child }
    var hasBacking: Bool { !backingSlot.isEmpty }
    /// For synchronous requests: `ChildSlot.withChild`.
    @inline(__always)
    func withBacking<R>(_ body: (BlockChild?) -> R) -> R { backingSlot.withChild(body) }
    /// As found when the image was opened. Fields that change live in `state`.
    var opened: ValidatedHeader
    /// Changes when an image is amended.
    var geometry: ClusterGeometry
    var options: QCOW2OpenOptions
    /// Tells whoever watches the graph that the image is damaged, and whether it takes no more writes. Set when the node is opened.
    var announceCorruption: (@Sendable (Contradiction, Bool) -> Void)?
    /// Nil for an image that is not encrypted, and where only metadata is wanted.
    let encryption: ImageEncryption?
    /// The key slots of an image that has some, as they are on disk.
    let keySlots: Mutex<LUKSLayout?>
    /// What a reopen prepares.
    var candidate: ReopenCandidate?

    let state: Mutex<ImageState>
    let inFlight = InFlightIO()
    /// The bitmaps, in memory and on disk.
    let bitmapStore = BitmapStore()
    let sparseness = SparsenessGuess()
    /// The virtual size, readable from any thread without a lock.
    private let currentLength: Atomic<Int>

    let preparation = AsyncMutex()
    let resizing = AsyncMutex()
    let tables = AsyncMutex()
    let commits = AsyncMutex()
    let refcountTableGrowth = AsyncMutex()
    let refcountLoads = AsyncMutex()
    let refcountWrites = AsyncMutex()
    let fileGrowth = AsyncMutex()
    let headerWrites = AsyncMutex()
    let keySlotChanges = AsyncMutex()

    /// Flushes that began and ended, so that one can stand for those that waited for it.
    let flushCounter = Mutex(FlushCounter())
    /// The compressed cluster that was read last.
    let lastDecompressed = Mutex<DecompressedCluster?>(nil)
    /// Whether the file below has refused to write new clusters without waiting: then trying first would only cost.
    let fileRefusesTries = Atomic<Bool>(false)
    /// What the image says about its backing file now.
    let storedBacking: Mutex<(name: String?, format: String?)>
    /// The length of the file when the image was opened: what `close` does not cut off.
    var initialFileLength: Int

    init(
        file: BlockChild, externalData: BlockChild? = nil, backing: BlockChild?, opened: ValidatedHeader, options: QCOW2OpenOptions, state: consuming ImageState,
        encryption: ImageEncryption? = nil, keySlots: LUKSLayout? = nil
    ) {
        self.file = file
        self.encryption = encryption
        self.keySlots = Mutex(keySlots)
        self.externalData = externalData
        backingSlot = ChildSlot(backing)
        storedBacking = Mutex((opened.backingName, opened.extensions.backingFormat))
        self.opened = opened
        geometry = opened.geometry
        self.options = options
        currentLength = Atomic(opened.virtualSize)
        initialFileLength = file.length
        self.state = Mutex(state)
    }

    package var length: Int { currentLength.load(ordering: .relaxed) }
    func setLength(_ byteCount: Int) { currentLength.store(byteCount, ordering: .releasing) }

    package var limits: BlockLimits {
        BlockLimits(
            requestAlignment: isEncrypted ? DiskCipher.sectorSize : 1, discardAlignment: geometry.subclusterSize, maxDiscard: 1 << 30, optimalTransfer: geometry.clusterSize)
    }

    package var children: [BlockChild] { [file] + [externalData, backing].compactMap(\.self) }

    package func check(children: [BlockChild]) throws(BlockError) {
        for child in children where child !== file && child !== externalData && !child.role.contains(.copyOnWrite) {
            throw BlockError(.unsupported, "A qcow2 node takes no child '\(child.name)'")
        }
        if children.filter({ $0.role.contains(.copyOnWrite) }).count > 1 { throw BlockError(.invalidArgument, "A qcow2 node has one backing file at most") }
        if let externalData, !children.contains(where: { $0 === externalData }) {
            throw BlockError(.unsupported, "This qcow2 node cannot do without its data file")
        }
        if !children.contains(where: { $0 === file }) { throw BlockError(.unsupported, "A qcow2 node cannot do without its file") }
    }

    package func adopt(children: [BlockChild]) { backingSlot.set(children.first { $0.role.contains(.copyOnWrite) }) }

    /// Takes a step on the state, getting obstacles out of its way until it succeeds.
    func step<T: Sendable>(_ body: (inout ImageState) throws(Obstacle) -> T) async throws(BlockError) -> T {
        while true {
            let obstacle: Obstacle
            do {
                return try state.withLock { state throws(Obstacle) in try body(&state) }
            } catch { obstacle = error }
            Trace.qcow2ObstacleBegin(file: file.node.name, obstacle: "\(obstacle)")
            defer { Trace.qcow2ObstacleEnd(file: file.node.name, obstacle: "\(obstacle)") }
            try await remove(obstacle)
        }
    }

    /// Gets one obstacle out of the way. See `Obstacle`.
    private func remove(_ obstacle: Obstacle) async throws(BlockError) {
        switch obstacle {
        case .l2Slice(let slice): try await loadSlice(slice)
        case .l2Table(let index): try await makeTable(atL1Index: index)
        case .l2CacheFull: try await commit(.mapping)
        case .refcountBlock(let index): try await loadRefcountBlock(index)
        case .refcountCacheFull: try await writeRefcountBlocks()
        case .refcountTable(let blockIndex): try await growRefcountTable(toHoldBlock: blockIndex)
        case .fileLength(let byteCount): try await growFile(to: byteCount)
        case .reservation(let id): await waitForReservation(id)
        case .corrupt(let contradiction): throw await signalCorruption(contradiction)
        }
    }

    private func waitForReservation(_ id: ReservationID) async {
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            let waits = state.withLock { $0.reservations.wait(for: id, continuation) }
            if !waits { continuation.resume() }
        }
    }
}
