import StrataBase

/// Everything about an image that changes while it is open, behind one `Mutex` in `QCOW2Driver`.
///
/// The mutex guards assignments and look-ups only, never I/O. Functions that need something from disk throw an `Obstacle` *before* they change
/// anything; the caller removes it outside the mutex and calls again.
struct ImageState: Sendable {
    let geometry: ClusterGeometry
    let version: UInt32

    /// Bytes.
    var virtualSize: Int
    var l1: [UInt64]
    /// Where the table lies.
    var l1Offset: HostOffset
    /// Entries that differ from the disk, with what the disk has.
    var l1OnDisk: [Int: UInt64] = [:]
    var l2: L2SliceCache
    var refcounts: RefcountState
    /// The dirty mark that the image was opened with is gone: the refcounts were rebuilt.
    var hasExactRefcounts = false
    /// The mapping is that of a snapshot, which nobody may write to.
    var showsSnapshot = false
    /// What the header says about snapshots.
    var snapshotCount: Int
    var snapshotTableOffset: HostOffset
    var reservations = ReservationList()
    var frees = FreeQueue()
    /// See `InFlightIO`.
    var epoch = 2
    /// Host clusters that hold tables, with their `MetadataKind`. Filled before the first write; guest data never goes there.
    var metadataClusters = IntTable()
    /// Which of them are looked for before guest data is written in place.
    var overlapChecks = MetadataKind.cached
    /// Whether clusters that users discard, and those that are freed otherwise, are given back to the file below.
    var punchesDiscards = true
    var punchesOthers = false
    /// Discarded clusters stay with their guest clusters, for later writes.
    var keepsDiscarded = false
    /// The header says that the image is being written: autoclear bits are cleared and `metadataClusters` is complete.
    var isReadyForWrites = false
    /// The bitmaps on disk are stored: they have to be marked as in use before the next write.
    var mustMarkBitmaps = false
    /// The next write can go ahead.
    var takesWrites: Bool { isReadyForWrites && !mustMarkBitmaps }
    /// Counts what must be on stable storage before the next L2 slice is written: published clusters with their data, and refcount blocks that
    /// were handed to the file. A flush brings `barrierReached` up to what `barrierWanted` was when it began.
    var barrierWanted = 0
    var barrierReached = 0
    /// Set when the image was found to contradict itself: no more writes.
    var isCorrupt = false
    /// Whoever watches has been told that it is damaged.
    var hasToldOfCorruption = false
    /// A write of the header's tables failed, and so did taking it back: the header may name either. What it named before, which must be there
    /// again before anything else is written. See `HeaderTables`.
    var headerInDoubt: HeaderTables?

    /// Tasks that wait until somebody else has read a slice.
    var loadWaiters: [CheckedContinuation<Void, Never>] = []

    // MARK: Positions

    var sliceShift: Int { geometry.clusterBits &+ l2.sliceBits }

    func slice(of guest: GuestOffset) -> Int { guest.rawValue &>> sliceShift }
    func position(of guest: GuestOffset) -> Int { (guest.rawValue &>> geometry.clusterBits) & (l2.entriesPerSlice &- 1) }
    func l1Index(of guest: GuestOffset) -> Int { guest.rawValue &>> geometry.l1Shift }
    func l1Index(ofSlice slice: Int) -> Int { slice >> (geometry.l2Bits - l2.sliceBits) }

    func lastSlice(inTableOf slice: Int) -> Int { slice | ((1 << (geometry.l2Bits - l2.sliceBits)) - 1) }

    /// Where a slice lies on disk.
    /// - Returns: nil when its L1 entry names no table.
    func hostOffset(ofSlice slice: Int) throws(Obstacle) -> HostOffset? {
        let index = l1Index(ofSlice: slice)
        guard index < l1.count else { return nil }
        let entry = L1Entry(bits: l1[index])
        if entry.tableOffset == 0 { return nil }
        guard entry.tableOffset.isAligned(to: geometry.clusterSize) else { throw .corrupt(.l1Entry(index: index, bits: entry.bits)) }
        let sliceInTable = slice & ((1 << (geometry.l2Bits - l2.sliceBits)) - 1)
        return HostOffset(entry.tableOffset + sliceInTable << (l2.sliceBits + l2.wordBits + 3))
    }

    /// The first cluster of a host range that holds tables which nobody may overwrite, as an obstacle.
    mutating func overlap(_ host: HostOffset, byteCount: Int) -> Obstacle? {
        var cluster = host.rawValue >> geometry.clusterBits
        let last = (host.rawValue + byteCount - 1) >> geometry.clusterBits
        while cluster <= last {
            if let kind = metadataClusters.value(for: cluster), kind & overlapChecks.rawValue != 0 {
                return .corrupt(.overlapsMetadata(HostOffset(cluster << geometry.clusterBits), MetadataKind(rawValue: kind)))
            }
            cluster += 1
        }
        return nil
    }

    mutating func setL1(_ index: Int, _ entry: L1Entry) {
        if l1OnDisk[index] == nil { l1OnDisk[index] = l1[index] }
        l1[index] = entry.bits
    }

    /// Whether refcounts or data must reach the disk before the mapping may.
    var needsBarrier: Bool {
        refcounts.cache.dirtyCount > 0 || !refcounts.tableOnDisk.isEmpty || refcounts.movingTo != nil || barrierWanted > barrierReached
    }
}
