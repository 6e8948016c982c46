package import BlockGraph
import IOCore
package import StrataBase
import Synchronization

extension QCOW2Driver: Checking {
    /// Compares the refcounts with the references that the tables hold.
    /// - Throws: when a table cannot be read at all, or for repairs, which this driver does not do yet.
    package func check(repair: CheckRepair) async throws(BlockError) -> CheckReport {
        try opened.requireServable()
        guard repair.isEmpty else { throw BlockError(.unsupported, "Repairing qcow2 images is not supported yet") }
        if state.withLock({ $0.isReadyForWrites }) {
            try await commit(.durable)
            try await settleRefcounts()
        }
        let (l1, tables) = state.withLock { ($0.l1, HeaderTables($0)) }
        let table = try await file.readWords(at: tables.refcountTableOffset, (tables.refcountTableClusters << geometry.clusterBits) >> 3)
        var walk = CheckWalk(file: file, opened: opened, tables: tables, refcountTable: table)
        try await walk.run(l1: l1)
        return walk.report
    }
}

extension BlockChild {
    /// Reads a table of 64-bit numbers.
    func readWords(at offset: HostOffset, _ count: Int) async throws(BlockError) -> [UInt64] {
        let buffer = IOBuffer(byteCount: count * 8)
        try await read(buffer.vector, at: offset.asGuest)
        return buffer.bigEndianWords(count)
    }
}

/// One check of one image: counting references. What counts as what follows `qemu-img check`, so that both report the same numbers.
struct CheckWalk {
    let file: BlockChild
    let opened: ValidatedHeader
    let tables: HeaderTables
    let geometry: ClusterGeometry
    let fileLength: Int
    let refcountTable: [UInt64]
    var references = ReferenceCounts()
    var report = CheckReport()
    /// Refcount blocks that were read, by table index; emptied when they take too much memory.
    var blocks: [Int: RefcountBlock] = [:]

    private static let maximumMessages = 1000
    /// The most bytes that a snapshot table or a bitmap directory is read for.
    static let maximumTableBytes = 64 << 20

    init(file: BlockChild, opened: ValidatedHeader, tables: HeaderTables, refcountTable: [UInt64]) {
        self.file = file
        self.opened = opened
        self.tables = tables
        geometry = opened.geometry
        fileLength = file.length
        self.refcountTable = refcountTable
        report.totalClusters = geometry.clusters(tables.virtualSize)
        report.allocatedClusters = 0
        report.fragmentedClusters = 0
        report.compressedClusters = 0
    }

    mutating func run(l1: [UInt64]) async throws(BlockError) {
        try count(0, geometry.clusterSize)
        try count(tables.l1Offset.rawValue, l1.count * 8)
        try await walk(l1, isActive: true)
        try await walkSnapshots()
        try await walkBitmaps()
        try count(tables.refcountTableOffset.rawValue, tables.refcountTableClusters << geometry.clusterBits)
        try countRefcountBlocks()
        try await compare()
    }

    mutating func corruption(_ message: String) {
        report.corruptions += 1
        note("ERROR " + message)
    }

    mutating func note(_ message: String) {
        if report.messages.count < Self.maximumMessages { report.messages.append(message) }
    }

    func hex(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }

    /// Counts one reference to each cluster of a host range. The last cluster of a file may be cut short, but not missing.
    mutating func count(_ offset: Int, _ byteCount: Int) throws(BlockError) {
        if byteCount <= 0 { return }
        let (end, overflow) = offset.addingReportingOverflow(byteCount)
        guard !overflow, end - fileLength < geometry.clusterSize else {
            return corruption(
                "counting reference for region exceeding the end of the file by one cluster or more: offset \(hex(offset)) size \(hex(byteCount))")
        }
        for cluster in (offset >> geometry.clusterBits)...((end - 1) >> geometry.clusterBits) { try references.add(cluster) }
    }

    // MARK: The mapping

    private mutating func walk(_ l1: [UInt64], isActive: Bool) async throws(BlockError) {
        for (index, bits) in l1.enumerated() where bits != 0 {
            let entry = L1Entry(bits: bits)
            if entry.hasReservedBits { corruption("found L1 entry with reserved bits set: \(hex(bits))") }
            if entry.tableOffset == 0 { continue }
            try count(entry.tableOffset, geometry.clusterSize)
            if !entry.tableOffset.isAligned(to: geometry.clusterSize) {
                corruption("l2_offset=\(hex(entry.tableOffset)): Table is not cluster aligned; L1 entry corrupted")
            }
            if isActive, let refcount = try await refcount(entry.tableOffset >> geometry.clusterBits), (refcount == 1) != entry.isCopied {
                corruption("OFLAG_COPIED L2 cluster: l1_index=\(index) l1_entry=\(hex(bits)) refcount=\(refcount)")
            }
            // A table beyond the end of the file reads as zeroes.
            if entry.tableOffset < fileLength { try await walkTable(entry.tableOffset, isActive: isActive) }
        }
    }

    private mutating func walkTable(_ offset: Int, isActive: Bool) async throws(BlockError) {
        let table: [UInt64]
        do { table = try await file.readWords(at: HostOffset(offset), geometry.l2Entries) } catch {
            report.checkErrors += 1
            return note("ERROR reading the L2 table at \(hex(offset)): \(error)")
        }
        var expected = 0
        for bits in table where bits != 0 {
            let entry = L2Entry(bits: bits)
            if entry.isCompressed {
                try countCompressed(entry, isActive: isActive)
                continue
            }
            if entry.hasReservedBits { corruption("found l2 entry with reserved bits set: \(hex(bits))") }
            let host = entry.hostOffset
            if host == 0 { continue }
            if !host.isAligned(to: geometry.clusterSize) {
                corruption("offset=\(hex(host)): Cluster is not properly aligned; L2 entry corrupted.")
            }
            if isActive {
                report.allocatedClusters? += 1
                if expected != 0, host != expected { report.fragmentedClusters? += 1 }
                expected = host &+ geometry.clusterSize
                if let refcount = try await refcount(host >> geometry.clusterBits), (refcount == 1) != entry.isCopied {
                    corruption("OFLAG_COPIED data cluster: l2_entry=\(hex(bits)) refcount=\(refcount)")
                }
            }
            try count(host, geometry.clusterSize)
        }
    }

    private mutating func countCompressed(_ entry: L2Entry, isActive: Bool) throws(BlockError) {
        if entry.isCopied { corruption("coffset=\(hex(entry.bits)): copied flag must never be set for compressed clusters") }
        let data = CompressedCluster(bits: entry.bits & ~L2Entry.copiedFlag, in: geometry)
        try count(data.offset.rawValue, data.byteCount)
        guard isActive else { return }
        report.allocatedClusters? += 1
        report.compressedClusters? += 1
        // Compressed clusters share sectors, so reading neighbours reads sectors twice: fragmented by nature.
        report.fragmentedClusters? += 1
    }

    // MARK: Snapshots and bitmaps

    private mutating func walkSnapshots() async throws(BlockError) {
        if tables.snapshotCount == 0 { return }
        let start = tables.snapshotTableOffset.rawValue
        let buffer = IOBuffer(byteCount: max(0, min(Self.maximumTableBytes, fileLength - start)))
        try await file.read(buffer.vector, at: GuestOffset(start))
        var position = 0
        for _ in 0..<tables.snapshotCount {
            let record: SnapshotRecord
            do throws(DecodingFailure) {
                let at = position
                record = try buffer.withBytes { bytes throws(DecodingFailure) in try SnapshotRecord(decoding: bytes, at: at) }
            } catch { return corruption("snapshot table is truncated: \(error)") }
            position += record.encodedSize
            guard record.l1TableOffset <= UInt64(Int.max >> 1), Int(record.l1TableOffset).isAligned(to: geometry.clusterSize),
                Int(record.l1Size) <= ClusterGeometry.maximumL1Bytes / 8
            else {
                corruption("snapshot \(record.identifier): L1 table offset \(hex(record.l1TableOffset)) or size \(record.l1Size) is invalid")
                continue
            }
            try count(Int(record.l1TableOffset), Int(record.l1Size) * 8)
            try await walk(try await file.readWords(at: HostOffset(Int(record.l1TableOffset)), Int(record.l1Size)), isActive: false)
        }
        try count(start, position)
    }

    private mutating func walkBitmaps() async throws(BlockError) {
        guard opened.header.autoclear.contains(.bitmaps), let bitmaps = opened.extensions.bitmaps, bitmaps.count > 0 else { return }
        guard bitmaps.directoryOffset <= UInt64(Int.max >> 1), bitmaps.directorySize <= UInt64(Self.maximumTableBytes) else {
            return corruption("the bitmap directory's offset or size is invalid")
        }
        try count(Int(bitmaps.directoryOffset), Int(bitmaps.directorySize))
        let buffer = IOBuffer(byteCount: Int(bitmaps.directorySize))
        try await file.read(buffer.vector, at: GuestOffset(Int(bitmaps.directoryOffset)))
        var position = 0
        for _ in 0..<bitmaps.count {
            let record: BitmapRecord
            do throws(DecodingFailure) {
                let at = position
                record = try buffer.withBytes { bytes throws(DecodingFailure) in try BitmapRecord(decoding: bytes, at: at) }
            } catch { return corruption("bitmap directory is truncated: \(error)") }
            position += record.encodedSize
            guard record.tableOffset <= UInt64(Int.max >> 1), Int(record.tableSize) * 8 <= Self.maximumTableBytes else {
                corruption("a bitmap table's offset or size is invalid")
                continue
            }
            try count(Int(record.tableOffset), Int(record.tableSize) * 8)
            for entry in try await file.readWords(at: HostOffset(Int(record.tableOffset)), Int(record.tableSize)) {
                let offset = Int(entry & BitmapRecord.tableOffsetMask)
                if offset != 0 { try count(offset, geometry.clusterSize) }
            }
        }
    }
}
