import BlockGraph
import IOCore
import StrataBase
import Synchronization

/// Another set of tables for an image, built beside the one in use and put into force by one write of the header: how snapshots are made, applied and
/// deleted. Before that write the image on disk is the old one, after it the new one; what a crash leaves of the other is leaked clusters.
///
/// No request may be on the node. Copied flags, which a table in use cannot change together with the refcounts that they repeat, are right in both.
struct TableRebuild {
    let driver: QCOW2Driver
    private let geometry: ClusterGeometry
    private(set) var shadow: RefcountShadow
    private let endOfFile: Int

    init(_ driver: QCOW2Driver) {
        self.driver = driver
        geometry = driver.geometry
        shadow = RefcountShadow(driver)
        endOfFile = driver.state.withLock { $0.refcounts.endOfFile }
    }

    /// 64-bit words of one L2 entry; the first one names the cluster.
    private var wordsPerEntry: Int { geometry.l2EntryWords }

    // MARK: References

    /// Adds `delta` to the refcounts of everything that an L1 table refers to.
    mutating func countReferences(of l1: [UInt64], by delta: Int) async throws(BlockError) {
        for bits in l1 {
            guard let table = try l2Table(bits) else { continue }
            try await shadow.change(table.rawValue >> geometry.clusterBits, by: delta)
            let words = try await driver.file.readWords(at: table, geometry.clusterSize / 8)
            for number in stride(from: 0, to: words.count, by: wordsPerEntry) where words[number] != 0 {
                try await countReferences(of: L2Entry(bits: words[number]), by: delta)
            }
        }
    }

    private mutating func countReferences(of entry: L2Entry, by delta: Int) async throws(BlockError) {
        switch entry.meaning(in: geometry, version: driver.opened.header.version) {
        case .normal(let host), .zero(let host?), .mixed(let host?): try await countReferences(host, geometry.clusterSize, by: delta)
        case .compressed(let data):
            let (start, byteCount) = data.hostClusters(in: geometry)
            try await countReferences(start, byteCount, by: delta)
        case .zero(nil), .mixed(nil), .unallocated: break
        case .invalid: throw BlockError(.corruptImage, "L2 entry 0x\(String(entry.bits, radix: 16)) is invalid; check the image")
        }
    }

    private mutating func countReferences(_ start: HostOffset, _ byteCount: Int, by delta: Int) async throws(BlockError) {
        guard start.rawValue < endOfFile else { throw BlockError(.corruptImage, "A cluster at \(start) is beyond the end of the file; check the image") }
        let first = start.rawValue >> geometry.clusterBits
        for cluster in first..<(first + byteCount >> geometry.clusterBits) { try await shadow.change(cluster, by: delta) }
    }

    /// - Returns: nil where there is no table.
    private func l2Table(_ bits: UInt64) throws(BlockError) -> HostOffset? {
        let offset = L1Entry(bits: bits).tableOffset
        if offset == 0 { return nil }
        guard offset.isAligned(to: geometry.clusterSize), offset < endOfFile else {
            throw BlockError(.corruptImage, "L1 entry 0x\(String(bits, radix: 16)) is invalid; check the image")
        }
        return HostOffset(offset)
    }

    /// Lets go of whole clusters.
    mutating func release(_ start: HostOffset, byteCount: Int) async throws(BlockError) {
        let first = start.rawValue >> geometry.clusterBits
        for number in 0..<geometry.clusters(byteCount) { try await shadow.change(first + number, by: -1) }
    }

    // MARK: Copied flags

    /// Makes the copied flags of an L1 table and of what it names say what the new refcounts say. L2 tables of which an entry changes are written anew.
    /// - Returns: whether anything has changed.
    mutating func refreshCopiedFlags(_ l1: inout [UInt64]) async throws(BlockError) -> Bool {
        var hasChanged = false
        for index in l1.indices {
            guard let table = try l2Table(l1[index]) else { continue }
            let new: L1Entry
            if let copy = try await tableWithFlags(table) {
                let run = try await shadow.take(1)
                try await driver.writeTable(copy, at: run)
                try await shadow.change(table.rawValue >> geometry.clusterBits, by: -1)
                new = L1Entry(table: run.start, copied: true)
            } else {
                new = L1Entry(table: table, copied: try await shadow.refcount(table.rawValue >> geometry.clusterBits) == 1)
            }
            if new.bits == l1[index] { continue }
            l1[index] = new.bits
            hasChanged = true
        }
        return hasChanged
    }

    /// The table with the right flags; nil when it has them already.
    private mutating func tableWithFlags(_ table: HostOffset) async throws(BlockError) -> [UInt64]? {
        var words = try await driver.file.readWords(at: table, geometry.clusterSize / 8)
        var hasChanged = false
        for number in stride(from: 0, to: words.count, by: wordsPerEntry) {
            let entry = L2Entry(bits: words[number])
            if entry.isCompressed || entry.hostOffset == 0 { continue }
            let isCopied = try await shadow.refcount(entry.hostOffset >> geometry.clusterBits) == 1
            if isCopied == entry.isCopied { continue }
            words[number] ^= L2Entry.copiedFlag
            hasChanged = true
        }
        return hasChanged ? words : nil
    }

    // MARK: Tables

    /// Writes an L1 table to clusters of its own.
    mutating func write(l1: [UInt64]) async throws(BlockError) -> HostOffset {
        let run = try await shadow.take(max(1, geometry.clusters(l1.count * 8)))
        try await driver.writeTable(l1, at: run)
        return run.start
    }

    /// Writes a snapshot table to clusters of its own.
    /// - Returns: zero for an empty one, which needs none.
    mutating func write(snapshots: [SnapshotRecord]) async throws(BlockError) -> HostOffset {
        if snapshots.isEmpty { return HostOffset(0) }
        let bytes = snapshots.flatMap { $0.encoded() }
        let run = try await shadow.take(geometry.clusters(bytes.count))
        let padding = run.clusterCount << geometry.clusterBits - bytes.count
        let buffer = IOBuffer(copying: bytes + [UInt8](repeating: 0, count: padding))
        defer { withExtendedLifetime(buffer) {} }
        try await driver.file.write(buffer.vector, at: run.start.asGuest)
        return run.start
    }

    /// Puts the new tables into force. Under `commits`.
    mutating func switchOver(l1: [UInt64], to change: (inout HeaderTables) -> Void) async throws(BlockError) {
        let place = try await shadow.finish()
        let old = driver.state.withLock { HeaderTables($0) }
        var new = old
        change(&new)
        new.l1Size = l1.count
        new.refcountTableOffset = place.start
        new.refcountTableClusters = place.clusterCount
        var metadata = try driver.noteMetadata(new, l1: l1, refcountTable: shadow.table)
        await driver.noteInactiveMetadata(new, &metadata)
        try await driver.writeRefcounts()
        try await driver.file.flush()
        try await driver.switchHeader(from: old, to: new)
        driver.adopt(new, l1: l1, refcountTable: shadow.table, metadata)
        await driver.giveBackToFile(shadow.emptied)
    }

    /// Gives back what was taken, after a failure; unless nobody knows which tables the header names.
    func abandon() {
        if driver.state.withLock({ $0.headerInDoubt != nil }) { return }
        for run in shadow.taken { driver.giveBack(run) }
    }
}

extension QCOW2Driver {
    /// Takes over tables that the header has just begun to name. Caches hold nothing that is not on disk.
    fileprivate func adopt(_ tables: HeaderTables, l1: [UInt64], refcountTable: [UInt64], _ metadata: IntTable) {
        state.withLock { state in
            state.virtualSize = tables.virtualSize
            state.l1 = l1
            state.l1OnDisk = [:]
            state.l1Offset = tables.l1Offset
            state.l2 = options.emptyL2Cache(forVirtualSize: tables.virtualSize, geometry)
            state.refcounts.table = refcountTable
            state.refcounts.tableOnDisk = [:]
            state.refcounts.tableOffset = tables.refcountTableOffset
            state.refcounts.tableClusters = tables.refcountTableClusters
            state.refcounts.cache = RefcountCache(capacity: options.refcountSlots(geometry))
            state.refcounts.hint = 0
            state.refcounts.runSearch = nil
            state.refcounts.packingPosition = nil
            state.snapshotCount = tables.snapshotCount
            state.snapshotTableOffset = tables.snapshotTableOffset
            state.metadataClusters = metadata
            state.frees.hasEverFreed = true
        }
        lastDecompressed.withLock { $0 = nil }
        setLength(tables.virtualSize)
    }

    /// Gives clusters that are free now back to the file below. A service, not a promise.
    fileprivate func giveBackToFile(_ clusters: [Int]) async {
        guard options.passesSnapshotDiscards else { return }
        let sorted = clusters.sorted()
        var next = 0
        while next < sorted.count {
            let first = sorted[next]
            var end = first
            while next < sorted.count, sorted[next] <= end {
                let cluster = sorted[next]
                next += 1
                if cluster < end { continue }
                do {
                    let isFree = try await step { state throws(Obstacle) in try state.refcounts.refcount(ofCluster: cluster) == 0 }
                    if isFree { end = cluster + 1 }
                } catch { return }
            }
            if end == first { continue }
            let range = GuestRange(GuestOffset(first << geometry.clusterBits), byteCount: (end - first) << geometry.clusterBits)
            do { try await file.discard(range) } catch { return }
        }
    }
}
