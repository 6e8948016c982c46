import BlockGraph
import IOCore
import StrataBase

// The second half of a check: what the refcounts on disk say about the references that were counted.

extension CheckWalk {
    private static let blockCacheBytes = 32 << 20

    mutating func countRefcountBlocks() throws(BlockError) {
        let clusters = geometry.clusters(fileLength)
        for (index, bits) in refcountTable.enumerated() where bits != 0 {
            if bits & ~RefcountState.offsetMask != 0 || bits > UInt64(Int.max) {
                corruption("refcount table entry \(index) has reserved bits set")
                continue
            }
            let offset = Int(bits)
            if !offset.isAligned(to: geometry.clusterSize) {
                corruption("refcount block \(index) is not cluster aligned; refcount table entry corrupted")
                continue
            }
            let cluster = offset >> geometry.clusterBits
            if cluster >= clusters {
                corruption("refcount block \(index) is outside image")
                continue
            }
            try count(offset, geometry.clusterSize)
            let found = references.count(cluster)
            if found != 1 { corruption("refcount block \(index) refcount=\(found)") }
        }
    }

    /// The clusters of the refcount table and of its blocks, as far as they can be any.
    var refcountStructures: [Int] {
        let first = tables.refcountTableOffset.rawValue >> geometry.clusterBits
        let blocks = refcountTable.filter { $0 != 0 && $0 & ~RefcountState.offsetMask == 0 && $0 <= UInt64(Int.max) && Int($0).isAligned(to: geometry.clusterSize) }
        return Array(first..<first + tables.refcountTableClusters) + blocks.map { Int($0) >> geometry.clusterBits }
    }

    func hasBlock(_ index: Int) -> Bool {
        index < refcountTable.count && refcountTable[index] & RefcountState.offsetMask != 0
    }

    /// The refcount on disk, nil when its block cannot be used.
    mutating func refcount(_ cluster: Int) async throws(BlockError) -> UInt64? {
        let index = cluster >> geometry.refcountBlockBits
        guard hasBlock(index) else { return 0 }
        guard let block = try await block(index) else { return nil }
        return block[cluster & (geometry.refcountsPerBlock - 1)]
    }

    /// The same without reading anything; nil when that is not possible.
    func latestRefcount(_ cluster: Int) -> UInt64? {
        guard cluster >> geometry.refcountBlockBits == latestBlock.index else { return nil }
        return latestBlock.block[cluster & (geometry.refcountsPerBlock &- 1)]
    }

    private mutating func block(_ index: Int) async throws(BlockError) -> RefcountBlock? {
        if let block = blocks[index] {
            latestBlock = (index, block)
            return block
        }
        let offset = refcountTable[index] & RefcountState.offsetMask
        guard offset <= UInt64(Int.max), Int(offset).isAligned(to: geometry.clusterSize) else { return nil }
        // Behind the end of the file there are zeroes.
        if Int(offset) >= fileLength { return RefcountBlock(emptyFor: geometry) }
        let buffer = IOBuffer(byteCount: geometry.clusterSize)
        do { try await file.read(buffer.vector, at: GuestOffset(Int(offset))) } catch { return nil }
        if (blocks.count + 1) << geometry.clusterBits > Self.blockCacheBytes { blocks.removeAll() }
        let block = RefcountBlock(bytes: buffer.copyToArray(), order: geometry.refcountOrder)
        blocks[index] = block
        latestBlock = (index, block)
        return block
    }

    /// Compares counts with references, cluster by cluster, where there is either.
    mutating func compare() async throws(BlockError) {
        let clusters = geometry.clusters(fileLength)
        var highest = 0
        // Without a refcount block only clusters that somebody refers to matter.
        for start in references.chunkStarts where !hasBlock(start >> geometry.refcountBlockBits) {
            for cluster in start..<(start + ReferenceCounts.chunkSize) where references.count(cluster) > 0 {
                highest = max(highest, cluster)
                corruption("cluster \(cluster) refcount=0 reference=\(references.count(cluster))")
            }
        }
        for index in refcountTable.indices where hasBlock(index) {
            let first = index << geometry.refcountBlockBits
            // References may reach one cluster further than a file that ends inside it.
            if first > clusters { break }
            guard let block = try await block(index) else {
                report.checkErrors += max(0, min(geometry.refcountsPerBlock, clusters - first))
                note("ERROR can't get refcounts of block \(index)")
                continue
            }
            let count = min(geometry.refcountsPerBlock, clusters + 1 - first)
            // A block holds whole chunks: it has at least 64 refcounts, a power of two.
            for start in stride(from: 0, to: count, by: ReferenceCounts.chunkSize) {
                let chunk = references.chunk(startingAt: first + start)
                for position in start..<min(count, start + ReferenceCounts.chunkSize) {
                    let stored = block[position]
                    let found = chunk.map { UInt64($0[position &- start]) } ?? 0
                    if stored == found {
                        if found > 0 { highest = max(highest, first + position) }
                        continue
                    }
                    differs(first + position, stored, found, clusters, &highest)
                }
            }
        }
        report.imageEndOffset = (highest + 1) << geometry.clusterBits
    }

    private mutating func differs(_ cluster: Int, _ stored: UInt64, _ found: UInt64, _ clusters: Int, _ highest: inout Int) {
        if cluster >= clusters, found == 0 { return }
        highest = max(highest, cluster)
        if stored < found {
            corruption("cluster \(cluster) refcount=\(stored) reference=\(found)")
        } else {
            report.leaks += 1
            note("Leaked cluster \(cluster) refcount=\(stored) reference=\(found)")
        }
    }
}
