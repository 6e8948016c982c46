package import StrataBase

/// An entry of an L1 table. Source: docs/interop/qcow2, "L1 table entry".
@frozen
package struct L1Entry: Hashable, Sendable, BitwiseCopyable {
    package var bits: UInt64

    @inlinable package init(bits: UInt64) { self.bits = bits }
    /// - Parameter copied: the table's refcount is exactly one.
    init(table: HostOffset, copied: Bool) { bits = UInt64(table.rawValue) | (copied ? Self.copiedFlag : 0) }

    static let copiedFlag: UInt64 = 1 << 63
    static let offsetMask: UInt64 = 0x00ff_ffff_ffff_fe00
    static let reservedMask: UInt64 = ~(copiedFlag | offsetMask)

    /// Where the L2 table lies; zero when there is none. Not yet checked for alignment.
    var tableOffset: Int { Int(bits & Self.offsetMask) }
    var isCopied: Bool { bits & Self.copiedFlag != 0 }
    var hasReservedBits: Bool { bits & Self.reservedMask != 0 }
}

/// An entry of an L2 table as it is on disk. Source: docs/interop/qcow2, "L2 table entry".
@frozen
package struct L2Entry: Hashable, Sendable, BitwiseCopyable {
    package var bits: UInt64
    /// The second word of an extended entry; zero in images without subclusters.
    package var subclusters: SubclusterBitmap

    @inlinable package init(bits: UInt64, subclusters: SubclusterBitmap = SubclusterBitmap(bits: 0)) {
        self.bits = bits
        self.subclusters = subclusters
    }

    static let copiedFlag: UInt64 = 1 << 63
    static let compressedFlag: UInt64 = 1 << 62
    static let zeroFlag: UInt64 = 1
    static let offsetMask: UInt64 = 0x00ff_ffff_ffff_fe00
    /// Bits that a standard (not compressed) entry must not have.
    static let reservedMask: UInt64 = 0x3f00_0000_0000_01fe

    static let unallocated = L2Entry(bits: 0)
    /// Reads as zeroes, without a host cluster. Version 3 only.
    static let zero = L2Entry(bits: zeroFlag)

    /// A guest cluster in a host cluster of its own with refcount one.
    static func normal(_ host: HostOffset) -> L2Entry { L2Entry(bits: UInt64(host.rawValue) | copiedFlag) }

    var isCopied: Bool { bits & Self.copiedFlag != 0 }
    var isCompressed: Bool { bits & Self.compressedFlag != 0 }
    var readsAsZero: Bool { !isCompressed && bits & Self.zeroFlag != 0 }
    /// Where the host cluster of a standard entry lies; zero when there is none.
    var hostOffset: Int { Int(bits & Self.offsetMask) }
    var hasReservedBits: Bool { !isCompressed && bits & Self.reservedMask != 0 }

    /// What an entry means.
    enum Meaning: Hashable, Sendable {
        /// The backing file decides; without one the cluster reads as zeroes.
        case unallocated
        /// Reads as zeroes; the host cluster, when there is one, is kept for later writes.
        case zero(HostOffset?)
        case normal(HostOffset)
        case compressed(CompressedCluster)
        /// Its subclusters mean different things, or are not allocated although the cluster has a host cluster. See `kind(ofSubcluster:in:)`.
        case mixed(HostOffset?)
        /// The entry breaks a rule of the format.
        case invalid(Defect)
    }

    enum Defect: Hashable, Sendable {
        case unalignedOffset
        /// A subcluster that is both data and zeroes, or data in no host cluster.
        case subclusters
        /// A zero flag in a version 2 image.
        case zeroFlagTooOld
    }

    func meaning(in geometry: ClusterGeometry, version: UInt32) -> Meaning {
        if isCompressed { return .compressed(CompressedCluster(bits: bits, in: geometry)) }
        let offset = hostOffset
        if offset & (geometry.clusterSize - 1) != 0 { return .invalid(.unalignedOffset) }
        if geometry.hasSubclusters { return dividedMeaning(in: geometry) }
        if bits & Self.zeroFlag != 0 {
            if version < 3 { return .invalid(.zeroFlagTooOld) }
            return .zero(host(in: geometry))
        }
        return host(in: geometry).map { .normal($0) } ?? .unallocated
    }

    private func dividedMeaning(in geometry: ClusterGeometry) -> Meaning {
        let host = host(in: geometry)
        let (data, zeroes) = (subclusters.allocated, subclusters.zero)
        if data & zeroes != 0 || (host == nil && data != 0) { return .invalid(.subclusters) }
        if zeroes == .max { return .zero(host) }
        guard let host else { return zeroes == 0 ? .unallocated : .mixed(nil) }
        return data == .max ? .normal(host) : .mixed(host)
    }

    /// Where the host cluster of a standard entry lies; nil when there is none. Offset zero is the image's header, where no data lies, but it is a
    /// place like any other in a data file: there the copied flag tells.
    func host(in geometry: ClusterGeometry) -> HostOffset? {
        let offset = hostOffset
        return offset != 0 || (geometry.hasExternalData && isCopied) ? HostOffset(offset) : nil
    }

    func hasHost(in geometry: ClusterGeometry) -> Bool { host(in: geometry) != nil }

    /// The same mapping without data in its host cluster: it reads as zeroes.
    func zeroed(in geometry: ClusterGeometry) -> L2Entry {
        geometry.hasSubclusters ? L2Entry(bits: bits & ~Self.zeroFlag, subclusters: .allZero) : L2Entry(bits: bits | Self.zeroFlag)
    }

    /// Reads as zeroes, without a host cluster.
    static func zero(in geometry: ClusterGeometry) -> L2Entry { geometry.hasSubclusters ? L2Entry(bits: 0, subclusters: .allZero) : .zero }

    /// What one subcluster of a valid entry that is not compressed means. In an image without subclusters there is one, the cluster.
    func kind(ofSubcluster index: Int, in geometry: ClusterGeometry) -> GuestExtent.Kind {
        let hasHost = host(in: geometry) != nil
        guard geometry.hasSubclusters else {
            if readsAsZero { return hasHost ? .zeroAllocated : .zero }
            return hasHost ? .normal : .unallocated
        }
        if subclusters.zero >> UInt32(index) & 1 != 0 { return hasHost ? .zeroAllocated : .zero }
        if subclusters.allocated >> UInt32(index) & 1 != 0 { return .normal }
        return hasHost ? .reserved : .unallocated
    }

    /// How many subclusters from `index` on mean the same.
    func run(fromSubcluster index: Int, in geometry: ClusterGeometry) -> Int {
        geometry.hasSubclusters ? subclusters.run(from: index) : 1
    }
}

/// Which subclusters of a cluster are data, and which read as zeroes; the others are not allocated. Source: docs/interop/qcow2, "Extended L2 Entries".
@frozen
package struct SubclusterBitmap: Hashable, Sendable, BitwiseCopyable {
    package var bits: UInt64

    @inlinable package init(bits: UInt64) { self.bits = bits }
    init(allocated: UInt32, zero: UInt32) { bits = UInt64(zero) << 32 | UInt64(allocated) }

    static let allZero = SubclusterBitmap(allocated: 0, zero: .max)

    /// Bit x: subcluster x is data in the host cluster.
    var allocated: UInt32 { UInt32(truncatingIfNeeded: bits) }
    /// Bit x: subcluster x reads as zeroes.
    var zero: UInt32 { UInt32(truncatingIfNeeded: bits >> 32) }

    /// The bits of `count` subclusters from `first` on.
    /// - Precondition: they lie in one cluster.
    static func mask(_ first: Int, count: Int) -> UInt32 {
        UInt32(truncatingIfNeeded: ((UInt64(1) << UInt64(count)) &- 1) << UInt64(first))
    }

    /// How many subclusters from `index` on have the same two bits.
    func run(from index: Int) -> Int {
        func same(_ word: UInt32) -> Int {
            let shifted = word >> UInt32(index)
            return (shifted & 1 != 0 ? ~shifted : shifted).trailingZeroBitCount
        }
        return min(same(allocated), same(zero), ClusterGeometry.subclustersPerCluster - index)
    }
}

/// Where the data of a compressed cluster lies. Source: docs/interop/qcow2, "Compressed Clusters Descriptor".
package struct CompressedCluster: Hashable, Sendable {
    /// The first byte of the stream; any alignment.
    package let offset: HostOffset
    /// Bytes from `offset` to the end of the last sector; the stream ends somewhere inside.
    package let byteCount: Int

    init(bits: UInt64, in geometry: ClusterGeometry) {
        let split = UInt64(geometry.compressedOffsetBits)
        // At most 61 bits.
        offset = HostOffset(Int(bits & ((1 << split) - 1)))
        let sectorsMinusOne = Int((bits & (L2Entry.compressedFlag - 1)) >> split)
        byteCount = (sectorsMinusOne + 1) * 512 - (offset.rawValue & 511)
    }

    init(offset: HostOffset, byteCount: Int) {
        self.offset = offset
        self.byteCount = byteCount
    }

    /// Whether an entry has room for the offset: the larger the clusters, the fewer bits there are for it.
    func fits(in geometry: ClusterGeometry) -> Bool { offset.rawValue + byteCount <= 1 << min(56, geometry.compressedOffsetBits) }

    /// The entry that names this data: sectors are counted from the one that holds the first byte.
    func entry(in geometry: ClusterGeometry) -> L2Entry {
        let sectors = (offset.rawValue + byteCount - 1) / 512 - offset.rawValue / 512
        return L2Entry(bits: L2Entry.compressedFlag | UInt64(sectors) << UInt64(geometry.compressedOffsetBits) | UInt64(offset.rawValue))
    }

    /// The host clusters that the data touches; each holds one reference for it. Bytes, whole clusters.
    func hostClusters(in geometry: ClusterGeometry) -> (start: HostOffset, byteCount: Int) {
        let start = offset.rawValue.roundedDown(to: geometry.clusterSize)
        let end = (offset.rawValue + byteCount).roundedUp(to: geometry.clusterSize)
        return (HostOffset(start), end - start)
    }
}
