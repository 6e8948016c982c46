import StrataBase

/// Host clusters that were just taken, with refcount one.
struct ClusterRun: Hashable, Sendable {
    let start: HostOffset
    let clusterCount: Int
    /// They read as zeroes: the file grew over them and nobody has written them since.
    let isKnownZero: Bool
}

extension RefcountState {
    /// Takes up to `wanted` free clusters in a row: as many as there are at the first free one.
    /// - Parameter isMetadata: says whether a cluster holds tables; one that looks free then proves the refcounts wrong.
    mutating func allocate(upTo wanted: Int, _ metadata: inout IntTable) throws(Obstacle) -> ClusterRun {
        while true {
            let (slot, index) = try blockForAllocation(at: hint, &metadata)
            let position = positionInBlock(ofCluster: hint)
            guard let free = cache.firstFree(slot, from: position) else {
                hint = (index + 1) << geometry.refcountBlockBits
                continue
            }
            hint = index << geometry.refcountBlockBits + free
            let run = cache.freeRun(slot, from: free, limit: wanted)
            try requireFile(endsAfter: hint + run)
            return try take(hint, run, slot, metadata)
        }
    }

    /// Takes exactly `count` clusters in a row, for tables.
    mutating func allocateContiguous(_ count: Int, _ metadata: inout IntTable) throws(Obstacle) -> ClusterRun {
        var start = hint
        var length = 0
        // First see that the whole run is free, and that its blocks are at hand, before anything changes.
        while length < count {
            let (slot, index) = try blockForAllocation(at: start + length, &metadata)
            let position = positionInBlock(ofCluster: start + length)
            let free = cache.freeRun(slot, from: position, limit: count - length)
            length += free
            if length < count, position + free < geometry.refcountsPerBlock {
                start = index << geometry.refcountBlockBits + position + free + 1
                length = 0
            }
        }
        try requireFile(endsAfter: start + count)
        var taken = 0
        var isKnownZero = true
        while taken < count {
            let cluster = start + taken
            guard let slot = cache.slot(of: blockIndex(ofCluster: cluster)) else {
                // The cache holds fewer blocks than the run spans: undo is not needed, what is taken so far is only leaked.
                throw .refcountBlock(blockIndex(ofCluster: cluster))
            }
            let run = min(count - taken, geometry.refcountsPerBlock - positionInBlock(ofCluster: cluster))
            isKnownZero = try take(cluster, run, slot, metadata).isKnownZero && isKnownZero
            taken += run
        }
        return ClusterRun(start: HostOffset(start << geometry.clusterBits), clusterCount: count, isKnownZero: isKnownZero)
    }

    private mutating func take(_ cluster: Int, _ count: Int, _ slot: Int, _ metadata: borrowing IntTable) throws(Obstacle) -> ClusterRun {
        for candidate in cluster..<(cluster + count) { try refuse(candidate, metadata) }
        let position = positionInBlock(ofCluster: cluster)
        cache.set(1, slot, position..<(position + count))
        let isKnownZero = cluster >= virginFrom
        virginFrom = max(virginFrom, cluster + count)
        highestEnd = max(highestEnd, (cluster + count) << geometry.clusterBits)
        if cluster == hint { hint = cluster + count }
        return ClusterRun(start: HostOffset(cluster << geometry.clusterBits), clusterCount: count, isKnownZero: isKnownZero)
    }

    /// A cluster that holds tables is not free, whatever its refcount says.
    private func refuse(_ cluster: Int, _ metadata: borrowing IntTable) throws(Obstacle) {
        guard let kind = metadata.value(for: cluster) else { return }
        throw .corrupt(.overlapsMetadata(HostOffset(cluster << geometry.clusterBits), MetadataKind(rawValue: kind)))
    }

    private func requireFile(endsAfter cluster: Int) throws(Obstacle) {
        if cluster << geometry.clusterBits > fileLength { throw .fileLength(cluster << geometry.clusterBits) }
    }

    /// The block that counts `cluster`, made when there is none: the new block then lies in that very cluster and counts itself.
    private mutating func blockForAllocation(at cluster: Int, _ metadata: inout IntTable) throws(Obstacle) -> (slot: Int, index: Int) {
        let index = blockIndex(ofCluster: cluster)
        // Host offsets have 56 bits; a table that claims more ends up as "too large" when it is to grow.
        guard index < table.count, cluster < 1 << (56 - geometry.clusterBits) else { throw .refcountTable(blockIndex: index) }
        if try blockOffset(index) != nil {
            guard let slot = cache.slot(of: index) else { throw .refcountBlock(index) }
            return (slot, index)
        }
        try requireFile(endsAfter: cluster + 1)
        try refuse(cluster, metadata)
        guard let slot = cache.insert(RefcountBlock(emptyFor: geometry), at: index, isDirty: true) else { throw .refcountCacheFull }
        let isHint = cluster == hint
        let run = try take(cluster, 1, slot, metadata)
        if isHint { hint = cluster + 1 }
        if tableOnDisk[index] == nil { tableOnDisk[index] = table[index] }
        table[index] = UInt64(run.start.rawValue)
        metadata.insert(cluster, .refcountBlock)
        return (slot, index)
    }
}
