import BlockGraph
import StorageSchema
import StrataBase

/// How an image is to be used: QAPI's options with the defaults filled in.
struct QCOW2OpenOptions: Hashable, Sendable {
    /// Bytes of an L2 table that are read and replaced at once.
    let l2SliceBytes: Int
    /// The most memory for slices, in bytes.
    let l2CacheBytes: Int
    /// The most memory for refcount blocks, in bytes.
    let refcountCacheBytes: Int
    /// Whether clusters that users discard are given back to the file below.
    let passesDiscards: Bool
    /// The same for what deleting or applying a snapshot frees.
    let passesSnapshotDiscards: Bool
    /// The same for what is freed otherwise: clusters that are written anew elsewhere.
    let passesOtherDiscards: Bool
    /// Discarded clusters keep their place in the file.
    let keepsDiscarded: Bool
    let overlapChecks: MetadataKind
    /// Whether the data file was named in the options, whatever the image says.
    let namesDataFile: Bool
    /// Seconds after which unused parts of the caches are let go; 0 for never.
    let cacheCleanInterval: Int

    /// QEMU's default for the largest L2 cache: it covers 256 GiB at 64 KiB clusters.
    private static let defaultL2CacheBytes = 32 << 20
    private static let minimumL2Slots = 16

    /// - Parameter version: the image's.
    init(_ options: BlockdevOptionsQcow2, discardsUnmap: Bool, _ geometry: ClusterGeometry, version: UInt32) throws(BlockError) {
        if version < 3 {
            if options.lazyRefcounts == true {
                throw BlockError(.invalidArgument, "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level")
            }
            // It has no clusters that read as zeroes and keep their place.
            if options.discardNoUnref == true { throw BlockError(.invalidArgument, "discard-no-unref is only supported since qcow2 version 3") }
        }
        let slice = options.l2CacheEntrySize ?? min(geometry.clusterSize, 4096)
        guard slice.isPowerOfTwo, slice >= 512, slice <= geometry.clusterSize else {
            throw BlockError(.invalidArgument, "L2 cache entry size must be a power of two between 512 and the cluster size (\(geometry.clusterSize))")
        }
        for (name, value) in [
            ("cache-size", options.cacheSize), ("l2-cache-size", options.l2CacheSize), ("refcount-cache-size", options.refcountCacheSize),
        ] {
            if let value, value < 0 { throw BlockError(.invalidArgument, "Value '\(value)' is out of range for parameter '\(name)'") }
        }
        let leastRefcountBytes = max(4 * geometry.clusterSize, 256 << 10)
        var l2Bytes = options.l2CacheSize
        var refcountBytes = options.refcountCacheSize
        if let total = options.cacheSize {
            if l2Bytes != nil, refcountBytes != nil {
                throw BlockError(.invalidArgument, "cache-size, l2-cache-size and refcount-cache-size may not be set at the same time")
            }
            if let l2Bytes, l2Bytes > total { throw BlockError(.invalidArgument, "l2-cache-size may not exceed cache-size") }
            if let refcountBytes, refcountBytes > total { throw BlockError(.invalidArgument, "refcount-cache-size may not exceed cache-size") }
            if let l2Bytes {
                refcountBytes = total - l2Bytes
            } else {
                let refcounts = refcountBytes ?? min(leastRefcountBytes, total / 2)
                refcountBytes = refcounts
                l2Bytes = total - refcounts
            }
        }
        l2SliceBytes = slice
        l2CacheBytes = l2Bytes ?? Self.defaultL2CacheBytes
        refcountCacheBytes = max(refcountBytes ?? leastRefcountBytes, 4 * geometry.clusterSize)
        passesDiscards = options.passDiscardRequest ?? discardsUnmap
        passesSnapshotDiscards = options.passDiscardSnapshot ?? true
        passesOtherDiscards = options.passDiscardOther ?? false
        keepsDiscarded = options.discardNoUnref ?? false
        overlapChecks = MetadataKind(options.overlapCheck)
        namesDataFile = options.dataFile != nil
        cacheCleanInterval = options.cacheCleanInterval ?? 600
        guard cacheCleanInterval >= 0, cacheCleanInterval <= Int(UInt32.max) else { throw BlockError(.invalidArgument, "Cache clean interval too big") }
    }

    /// log2 of the entries in a slice.
    func sliceBits(_ geometry: ClusterGeometry) -> Int { l2SliceBytes.trailingZeroBitCount - 3 - geometry.l2WordBits }

    func emptyL2Cache(forVirtualSize virtualSize: Int, _ geometry: ClusterGeometry) -> L2SliceCache {
        L2SliceCache(sliceBits: sliceBits(geometry), wordBits: geometry.l2WordBits, capacity: l2Slots(forVirtualSize: virtualSize, geometry))
    }

    /// How many slices are kept: no more than the disk has, no more than the memory allows.
    func l2Slots(forVirtualSize virtualSize: Int, _ geometry: ClusterGeometry) -> Int {
        let shift = geometry.clusterBits + sliceBits(geometry)
        let needed = (virtualSize >> shift) + 1
        return max(Self.minimumL2Slots, min(needed, l2CacheBytes / l2SliceBytes))
    }

    func refcountSlots(_ geometry: ClusterGeometry) -> Int { max(4, refcountCacheBytes / geometry.clusterSize) }

    /// Tells the state of an image what it must know of its options.
    func apply(to state: inout ImageState) {
        state.overlapChecks = overlapChecks
        state.punchesDiscards = passesDiscards
        state.punchesOthers = passesOtherDiscards
        state.keepsDiscarded = keepsDiscarded
    }
}
