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

    /// Takes exactly `count` clusters in a row, for tables. Refcount blocks that are missing there are made behind them.
    mutating func allocateContiguous(_ count: Int, _ metadata: inout IntTable) throws(Obstacle) -> ClusterRun {
        let (start, missing) = try findRun(count)
        try requireFile(endsAfter: start + count)
        if let missing {
            try makeBlock(missing, behind: start + count, &metadata)
            // One after the other: the run is found again, with one block less to make.
            throw .refcountBlock(missing)
        }
        // All blocks of the run have to be at hand before anything changes.
        var parts: [(cluster: Int, count: Int, slot: Int)] = []
        var position = start
        while position < start + count {
            let index = blockIndex(ofCluster: position)
            guard let slot = cache.slot(of: index) else { throw .refcountBlock(index) }
            let length = min(start + count - position, geometry.refcountsPerBlock - positionInBlock(ofCluster: position))
            parts.append((position, length, slot))
            position += length
        }
        for cluster in start..<(start + count) { try refuse(cluster, metadata) }
        var isKnownZero = true
        for part in parts { isKnownZero = try take(part.cluster, part.count, part.slot, metadata).isKnownZero && isKnownZero }
        return ClusterRun(start: HostOffset(start << geometry.clusterBits), clusterCount: count, isKnownZero: isKnownZero)
    }

    /// Looks for `count` free clusters in a row. What no block counts is free.
    ///
    /// An image can have more blocks than fit into the cache, so the search goes on where an obstacle stopped it (`runSearch`) instead of starting over.
    /// - Returns: where they begin, and a block that is missing there.
    private mutating func findRun(_ count: Int) throws(Obstacle) -> (start: Int, missing: Int?) {
        // The blocks of one run are needed at the same time.
        cache.grow(toCapacity: count >> geometry.refcountBlockBits + 4)
        var start = hint
        if let search = runSearch, search.count <= count { start = max(start, search.start) }
        var length = 0
        var missing: Int?
        while length < count {
            let cluster = start + length
            let (index, position) = (blockIndex(ofCluster: cluster), positionInBlock(ofCluster: cluster))
            guard index < table.count, cluster < 1 << (56 - geometry.clusterBits) else { throw .refcountTable(blockIndex: index) }
            let wanted = min(count - length, geometry.refcountsPerBlock - position)
            guard try blockOffset(index) != nil else {
                missing = index
                length += wanted
                continue
            }
            guard let slot = cache.slot(of: index) else { throw .refcountBlock(index) }
            let free = cache.freeRun(slot, from: position, limit: wanted)
            length += free
            if free == wanted { continue }
            // The one behind them is in use: go on at the next free one.
            (length, missing) = (0, nil)
            start = cache.firstFree(slot, from: position + free).map { cluster - position + $0 } ?? (index + 1) << geometry.refcountBlockBits
            runSearch = (count, start)
        }
        return (start, missing)
    }

    /// Makes a refcount block in the first free cluster behind a run of clusters that is going to be taken. When that one is not counted either, the block
    /// that counts it, and itself, is made instead.
    private mutating func makeBlock(_ index: Int, behind end: Int, _ metadata: inout IntTable) throws(Obstacle) {
        var place = end
        while true {
            let (slot, counting) = try blockForAllocation(at: place, &metadata)
            if try blockOffset(index) != nil { return }
            guard let free = cache.firstFree(slot, from: positionInBlock(ofCluster: place)) else {
                place = (counting + 1) << geometry.refcountBlockBits
                continue
            }
            place = counting << geometry.refcountBlockBits + free
            try requireFile(endsAfter: place + 1)
            try refuse(place, metadata)
            guard cache.hasRoom(besides: slot) else { throw .refcountCacheFull }
            _ = try take(place, 1, slot, metadata)
            // It has just changed, so it stays in the cache, and there is room for one more.
            guard cache.insert(RefcountBlock(emptyFor: geometry), at: index, isDirty: true) != nil else { preconditionFailure("there is a clean block, or room") }
            if tableOnDisk[index] == nil { tableOnDisk[index] = table[index] }
            table[index] = UInt64(place << geometry.clusterBits)
            metadata.insert(place, .refcountBlock)
            return
        }
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

    /// Clusters that were known to be zero are given back as they were. If others have been taken behind them, this is forgotten.
    mutating func forgetUse(of clusters: Range<Int>) {
        if virginFrom == clusters.upperBound { virginFrom = clusters.lowerBound }
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
