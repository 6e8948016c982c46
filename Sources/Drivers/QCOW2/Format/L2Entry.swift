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

    @inlinable package init(bits: UInt64) { self.bits = bits }

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
        /// The entry breaks a rule of the format.
        case invalid(Defect)
    }

    enum Defect: Hashable, Sendable {
        case unalignedOffset
        /// A zero flag in a version 2 image.
        case zeroFlagTooOld
    }

    func meaning(in geometry: ClusterGeometry, version: UInt32) -> Meaning {
        if isCompressed { return .compressed(CompressedCluster(bits: bits, in: geometry)) }
        let offset = hostOffset
        if offset & (geometry.clusterSize - 1) != 0 { return .invalid(.unalignedOffset) }
        if bits & Self.zeroFlag != 0 {
            if version < 3 { return .invalid(.zeroFlagTooOld) }
            return .zero(offset == 0 ? nil : HostOffset(offset))
        }
        // Offset zero is the header: an entry that names it maps nothing.
        return offset == 0 ? .unallocated : .normal(HostOffset(offset))
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
