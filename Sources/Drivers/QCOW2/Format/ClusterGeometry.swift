import StrataBase

/// The sizes that follow from the cluster size and the refcount width. A value; every member is arithmetic.
///
/// Source: docs/interop/qcow2, "Cluster mapping" and "Host cluster management".
@frozen
package struct ClusterGeometry: Hashable, Sendable {
    package static let supportedClusterBits = 9...21
    /// The largest active L1 table, as QEMU limits it. Bytes.
    package static let maximumL1Bytes = 32 << 20
    /// The largest refcount table, as QEMU limits it. Bytes.
    package static let maximumRefcountTableBytes = 8 << 20

    package let clusterBits: Int
    package let refcountOrder: Int
    /// L2 entries describe subclusters ("Extended L2 Entries").
    package let hasSubclusters: Bool
    /// Guest data lies in a file of its own, guest cluster by guest cluster, and is not counted by refcounts.
    package let hasExternalData: Bool

    /// Subclusters of one cluster, where there are any.
    package static let subclustersPerCluster = 32
    /// The smallest cluster that is divided: its subclusters are sectors.
    package static let leastClusterBitsWithSubclusters = 14

    /// - Precondition: the values are in the ranges that the format allows; headers are validated before.
    package init(clusterBits: Int, refcountOrder: Int, hasSubclusters: Bool = false, hasExternalData: Bool = false) {
        precondition(Self.supportedClusterBits.contains(clusterBits) && (0...6).contains(refcountOrder), "a validated header")
        precondition(!hasSubclusters || clusterBits >= Self.leastClusterBitsWithSubclusters, "a validated header")
        self.clusterBits = clusterBits
        self.refcountOrder = refcountOrder
        self.hasSubclusters = hasSubclusters
        self.hasExternalData = hasExternalData
    }

    package var clusterSize: Int { 1 << clusterBits }
    /// log2 of the words of eight bytes that make an L2 entry.
    var l2WordBits: Int { hasSubclusters ? 1 : 0 }
    /// Words of eight bytes that make an L2 entry.
    package var l2EntryWords: Int { 1 << l2WordBits }
    /// Entries of one L2 table, which fills one cluster.
    package var l2Entries: Int { 1 << l2Bits }
    var l2Bits: Int { clusterBits - 3 - l2WordBits }
    /// log2 of the bytes that are mapped by themselves: subclusters, or whole clusters where these are not divided.
    var subclusterBits: Int { hasSubclusters ? clusterBits - 5 : clusterBits }
    package var subclusterSize: Int { 1 << subclusterBits }
    /// log2 of the guest bytes that one L1 entry covers.
    var l1Shift: Int { clusterBits + l2Bits }
    package var refcountBits: Int { 1 << refcountOrder }
    /// log2 of the refcounts in one refcount block, which fills one cluster.
    package var refcountBlockBits: Int { clusterBits + 3 - refcountOrder }
    package var refcountsPerBlock: Int { 1 << refcountBlockBits }
    /// The largest value that a refcount can have.
    package var maximumRefcount: UInt64 { refcountOrder == 6 ? UInt64(Int64.max) : (1 << UInt64(refcountBits)) - 1 }

    /// Clusters that cover `byteCount`.
    func clusters(_ byteCount: Int) -> Int { (byteCount >> clusterBits) + (byteCount & (clusterSize - 1) == 0 ? 0 : 1) }

    /// L1 entries that cover a disk of `virtualSize` bytes.
    package func l1Entries(forVirtualSize virtualSize: Int) -> Int {
        (virtualSize >> l1Shift) + (virtualSize & ((1 << l1Shift) - 1) == 0 ? 0 : 1)
    }

    /// The largest disk that the L1 limit allows, in bytes.
    package var maximumVirtualSize: Int {
        let (bytes, overflow) = (Self.maximumL1Bytes / 8).multipliedReportingOverflow(by: 1 << l1Shift)
        return overflow ? Int.max.roundedDown(to: 512) : bytes
    }

    /// How a compressed L2 entry splits into offset and sector count: the number of offset bits.
    var compressedOffsetBits: Int { 62 - (clusterBits - 8) }
}
