import BlockGraph
import IOCore
import StrataBase
import Synchronization

/// The refcounts as they will be once the header names another refcount table. Blocks that change are copied to new places, so that until then the image
/// on disk is what it was, whatever happens; afterwards it is the new one, to the last bit.
///
/// Used while nobody else allocates or frees: no request is on the node, and everything was written back before. What is taken here is taken in the
/// refcounts in use as well, so that a crash leaks it and nobody else gets it.
struct RefcountShadow {
    private let driver: QCOW2Driver
    private let geometry: ClusterGeometry
    /// Host offsets of blocks after the switch.
    private(set) var table: [UInt64]
    /// Blocks in memory, by index: copied ones as they will be, others as they are.
    private var blocks: [Int: RefcountBlock] = [:]
    /// Indexes of blocks that were copied, with where they lay.
    private var moved: [Int: HostOffset] = [:]
    private(set) var taken: [ClusterRun] = []
    /// Clusters whose last reference went, most of them once: candidates to be given back to the file below.
    private(set) var emptied: [Int] = []

    private static let maximumBlockBytes = 32 << 20
    private static let maximumEmptied = 1 << 20

    init(_ driver: QCOW2Driver) {
        self.driver = driver
        geometry = driver.geometry
        table = driver.state.withLock { $0.refcounts.table }
    }

    private func index(_ cluster: Int) -> Int { cluster >> geometry.refcountBlockBits }
    private func position(_ cluster: Int) -> Int { cluster & (geometry.refcountsPerBlock - 1) }

    mutating func refcount(_ cluster: Int) async throws(BlockError) -> UInt64 {
        let index = index(cluster)
        guard index < table.count, table[index] != 0 else { return 0 }
        return try await block(index)[position(cluster)]
    }

    /// Adds to the refcount of a cluster.
    /// - Throws: `.corruptImage` when it does not exist or falls below zero, `.unsupported` when it has no room.
    mutating func change(_ cluster: Int, by delta: Int) async throws(BlockError) {
        let index = index(cluster)
        guard index < table.count, table[index] != 0 else {
            throw BlockError(.corruptImage, "the cluster at \(HostOffset(cluster << geometry.clusterBits)) is in use but has no refcount; check the image")
        }
        let old = try await block(index)[position(cluster)]
        if delta < 0, old < UInt64(-delta) {
            throw BlockError(.corruptImage, "the refcount of the cluster at \(HostOffset(cluster << geometry.clusterBits)) is too low; check the image")
        }
        let new = delta < 0 ? old - UInt64(-delta) : old &+ UInt64(delta)
        guard delta < 0 || (new > old && new <= geometry.maximumRefcount) else {
            throw BlockError(.invalidArgument, "The image counts references with \(geometry.refcountBits) bits, which is too few for this")
        }
        if moved[index] == nil { try await move(index) }
        // Taking a place for the copy may have pushed the block itself out.
        _ = try await block(index)
        let position = position(cluster)
        blocks[index]?[position] = new
        if new == 0, emptied.count < Self.maximumEmptied { emptied.append(cluster) }
    }

    /// Takes clusters in a row: used in both worlds.
    mutating func take(_ count: Int) async throws(BlockError) -> ClusterRun {
        let placeBefore = driver.state.withLock { $0.refcounts.movingTo?.offset }
        let run = try await driver.step { state throws(Obstacle) in try state.refcounts.allocateContiguous(count, &state.metadataClusters) }
        taken.append(run)
        let (present, growth) = driver.state.withLock { ($0.refcounts.table, $0.refcounts.movingTo) }
        // The refcounts in use may have got new blocks, or clusters for a longer table.
        if present.count > table.count { table += [UInt64](repeating: 0, count: present.count - table.count) }
        for index in present.indices where table[index] == 0 && present[index] != 0 {
            table[index] = present[index]
            // It may be counted by a block that was there before.
            try await noteTaken(HostOffset(Int(present[index] & RefcountState.offsetMask)), 1)
        }
        if let growth, growth.offset != placeBefore { try await noteTaken(growth.offset, growth.clusters) }
        try await noteTaken(run.start, count)
        return run
    }

    /// Blocks that are in memory or were copied do not know of clusters that were taken in the refcounts in use.
    private mutating func noteTaken(_ start: HostOffset, _ count: Int) async throws(BlockError) {
        let first = start.rawValue >> geometry.clusterBits
        for cluster in first..<(first + count) {
            let (index, position) = (index(cluster), position(cluster))
            if blocks[index] == nil, moved[index] != nil { _ = try await block(index) }
            blocks[index]?[position] = 1
        }
    }

    private mutating func move(_ index: Int) async throws(BlockError) {
        // Marked first: the place may be counted by this very block.
        let old = HostOffset(Int(table[index] & RefcountState.offsetMask))
        let run = try await take(1)
        // Read while it is still the one in use, with the new place counted in it.
        _ = try await block(index)
        moved[index] = old
        table[index] = UInt64(run.start.rawValue)
    }

    private mutating func block(_ index: Int) async throws(BlockError) -> RefcountBlock {
        if let block = blocks[index] { return block }
        if (blocks.count + 1) << geometry.clusterBits > Self.maximumBlockBytes { try await putAway() }
        let block: RefcountBlock
        if moved[index] != nil {
            block = try await read(HostOffset(Int(table[index])))
        } else {
            block = try await driver.step { state throws(Obstacle) in
                guard try state.refcounts.blockOffset(index) != nil else { return RefcountBlock(emptyFor: state.geometry) }
                guard let slot = state.refcounts.cache.slot(of: index) else { throw .refcountBlock(index) }
                return state.refcounts.cache.block(slot)
            }
        }
        blocks[index] = block
        return block
    }

    private func read(_ offset: HostOffset) async throws(BlockError) -> RefcountBlock {
        let buffer = IOBuffer(byteCount: geometry.clusterSize)
        try await driver.file.read(buffer.vector, at: offset.asGuest)
        return RefcountBlock(bytes: buffer.copyToArray(), order: geometry.refcountOrder)
    }

    /// Writes the copies to their places and forgets all blocks.
    private mutating func putAway() async throws(BlockError) {
        for (index, block) in blocks where moved[index] != nil {
            let buffer = IOBuffer(copying: block.bytes)
            defer { withExtendedLifetime(buffer) {} }
            try await driver.file.write(buffer.vector, at: GuestOffset(Int(table[index])))
        }
        blocks.removeAll()
    }

    /// Lets go of the tables in use, takes a place for the new refcount table, and writes everything. Nothing may change afterwards. Under `commits`.
    /// - Returns: where the table lies.
    mutating func finish() async throws(BlockError) -> ClusterRun {
        let entriesPerCluster = geometry.clusterSize / 8
        var place = try await take(tableClusters())
        // A table that became too short on the way moves first: then the header names what is let go here.
        try await driver.writeRefcounts()
        let old = driver.state.withLock { (first: $0.refcounts.tableOffset.rawValue >> geometry.clusterBits, count: $0.refcounts.tableClusters) }
        for cluster in old.first..<(old.first + old.count) { try await change(cluster, by: -1) }
        var released: Set<Int> = []
        while true {
            // Letting go of a block may copy another one, and each needs room in the table.
            while let index = moved.keys.first(where: { !released.contains($0) }), let place = moved[index] {
                released.insert(index)
                try await change(place.rawValue >> geometry.clusterBits, by: -1)
            }
            if tableClusters() <= place.clusterCount { break }
            for cluster in 0..<place.clusterCount { try await change(place.start.rawValue >> geometry.clusterBits + cluster, by: -1) }
            place = try await take(tableClusters())
        }
        guard driver.state.withLock({ $0.refcounts.movingTo == nil }) else {
            throw BlockError(.noSpace, "The refcount table of the image became too short; try again")
        }
        try await putAway()
        table = Array(table.prefix(place.clusterCount * entriesPerCluster))
        table += [UInt64](repeating: 0, count: place.clusterCount * entriesPerCluster - table.count)
        try await driver.writeTable(table, at: place)
        return place
    }

    private func tableClusters() -> Int {
        max(1, geometry.clusters(((table.lastIndex { $0 != 0 } ?? 0) + 1) * 8))
    }
}
