import StrataBase

/// The refcount table, the cached blocks, and where free clusters are looked for. A value inside the image's `Mutex`.
struct RefcountState: Sendable {
    let geometry: ClusterGeometry
    /// Host offsets of refcount blocks, zero where there is none. May be longer than the table on disk while that one moves.
    var table: [UInt64]
    /// Entries that differ from the table on disk, with what that one has.
    var tableOnDisk: [Int: UInt64] = [:]
    var tableOffset: HostOffset
    var tableClusters: Int
    /// A longer table has its clusters and waits to be written; see `RefcountTableGrowth`.
    var movingTo: (offset: HostOffset, clusters: Int)?
    /// The place that a commit is letting the header name, or has tried to: the header may name it from now on, so it is never given up.
    var moveTried: HostOffset?

    var cache: RefcountCache
    /// No cluster below this one is free, as far as we know.
    var hint = 0
    /// Where a search for clusters in a row has got to: no run of `count` free clusters begins before `start`. Forgotten when a cluster becomes free.
    var runSearch: (count: Int, start: Int)?
    /// No cluster at or above this one has been handed out since the file grew over it: it reads as zeroes.
    var virginFrom: Int
    /// Where the next compressed cluster goes: the unused rest of a host cluster that holds compressed data only. Nil when there is none.
    /// Nobody may append to a cluster that has begun to be freed; see `stopPacking`.
    var packingPosition: HostOffset?
    /// How long the file is, in bytes.
    var fileLength: Int
    /// The end of the highest cluster that was handed out, in bytes.
    var highestEnd: Int

    /// No valid host offset is at or behind this one, in bytes: the end of the file's last cluster, which may be cut short.
    @inline(__always) var endOfFile: Int { max(fileLength, virginFrom << geometry.clusterBits) }

    /// Entries that the table on disk has room for.
    var tableCapacityOnDisk: Int { tableClusters << (geometry.clusterBits - 3) }

    func blockIndex(ofCluster cluster: Int) -> Int { cluster >> geometry.refcountBlockBits }
    func positionInBlock(ofCluster cluster: Int) -> Int { cluster & (geometry.refcountsPerBlock - 1) }

    static let offsetMask: UInt64 = ~511

    /// Where the block lies, nil when there is none.
    func blockOffset(_ index: Int) throws(Obstacle) -> HostOffset? {
        guard index < table.count, table[index] != 0 else { return nil }
        let offset = table[index] & Self.offsetMask
        guard offset <= UInt64(Int.max), Int(offset).isAligned(to: geometry.clusterSize), offset != 0, Int(offset) < endOfFile else {
            throw .corrupt(.refcountTableEntry(index: index, value: table[index]))
        }
        return HostOffset(Int(offset))
    }

    /// The refcount of a cluster.
    mutating func refcount(ofCluster cluster: Int) throws(Obstacle) -> UInt64 {
        let index = blockIndex(ofCluster: cluster)
        guard try blockOffset(index) != nil else { return 0 }
        guard let slot = cache.slot(of: index) else { throw .refcountBlock(index) }
        return cache.refcount(slot, positionInBlock(ofCluster: cluster))
    }

    /// Lowers the refcount of a cluster by one.
    /// - Returns: what is left.
    mutating func lower(_ cluster: Int) throws(Obstacle) -> UInt64 {
        let index = blockIndex(ofCluster: cluster)
        guard try blockOffset(index) != nil else { throw .corrupt(.refcountUnderflow(HostOffset(cluster << geometry.clusterBits))) }
        guard let slot = cache.slot(of: index) else { throw .refcountBlock(index) }
        let position = positionInBlock(ofCluster: cluster)
        let count = cache.refcount(slot, position)
        if count == 0 { throw .corrupt(.refcountUnderflow(HostOffset(cluster << geometry.clusterBits))) }
        cache.set(count - 1, slot, position)
        if count == 1 {
            hint = min(hint, cluster)
            runSearch = nil
            stopPacking(in: HostOffset(cluster << geometry.clusterBits), byteCount: geometry.clusterSize)
        }
        return count - 1
    }
}
