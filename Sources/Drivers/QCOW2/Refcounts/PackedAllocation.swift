import StrataBase

// Where compressed clusters go: one behind the other, byte by byte, several in a host cluster. A host cluster has one reference for each of the
// compressed clusters that touch it. Source: docs/interop/qcow2, "Compressed Clusters Descriptor".

extension RefcountState {
    /// Takes `count` bytes for a compressed cluster: behind the one before if they fit there, or if the next host cluster is free, else at the
    /// start of a free host cluster.
    /// - Parameter count: at least 1, less than a cluster.
    mutating func allocatePacked(_ count: Int, _ metadata: inout IntTable) throws(Obstacle) -> HostOffset {
        precondition(count > 0 && count < geometry.clusterSize, "a compressed cluster is smaller than a cluster")
        guard let open = packingPosition, let shared = try referenceForSharing(open) else { return try beginPacking(count, &metadata) }
        let cluster = open.rawValue >> geometry.clusterBits
        let end = open + count
        if end.rawValue <= (cluster + 1) << geometry.clusterBits {
            guard let slot = cache.slot(of: blockIndex(ofCluster: cluster)) else { throw .refcountBlock(blockIndex(ofCluster: cluster)) }
            cache.set(shared, slot, positionInBlock(ofCluster: cluster))
            packingPosition = end.isAligned(to: geometry.clusterSize) ? nil : end
            return open
        }
        let run = try allocate(upTo: 1, &metadata)
        // Taking a cluster may have pushed the block of the other out of the cache.
        if run.start.rawValue == (cluster + 1) << geometry.clusterBits, let slot = cache.slot(of: blockIndex(ofCluster: cluster)) {
            cache.set(shared, slot, positionInBlock(ofCluster: cluster))
            packingPosition = end
            return open
        }
        packingPosition = run.start + count
        return run.start
    }

    private mutating func beginPacking(_ count: Int, _ metadata: inout IntTable) throws(Obstacle) -> HostOffset {
        let run = try allocate(upTo: 1, &metadata)
        packingPosition = run.start + count
        return run.start
    }

    /// What the refcount of the cluster becomes with one more reference; nil when it has no room for it.
    private mutating func referenceForSharing(_ position: HostOffset) throws(Obstacle) -> UInt64? {
        let count = try refcount(ofCluster: position.rawValue >> geometry.clusterBits)
        // Zero cannot be: nobody packs into a cluster that is free. Rather a cluster more than trusting a count that is wrong.
        return count == 0 || count >= geometry.maximumRefcount ? nil : count + 1
    }

    /// Puts no more compressed data into any host cluster of this range. It has begun to be freed: the file may be told to forget it as soon as
    /// its last reference goes.
    mutating func stopPacking(in start: HostOffset, byteCount: Int) {
        if let position = packingPosition, position >= start, position < start + byteCount { packingPosition = nil }
    }
}
