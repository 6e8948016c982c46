package import BlockGraph
import IOCore
package import StrataBase
import Synchronization

extension QCOW2Driver: Checking {
    /// Compares the refcounts with the references that the tables hold, and repairs what was asked for. Nobody else may use an image that is repaired.
    /// - Throws: when a table cannot be read at all, or a repair cannot be carried out; the image is then what it was.
    package func check(repair: CheckRepair, progress: (@Sendable (_ done: Int, _ total: Int) -> Void)?) async throws(BlockError) -> CheckReport {
        try refuseUnclearData()
        if state.withLock({ $0.isReadyForWrites }) {
            try await commit(.durable)
            try await settleRefcounts()
        }
        let before = try await walk(progress)
        if repair.isEmpty { return before.report }
        var after = before
        // A table that moves leaves a cluster that others may refer to as well, whose flags then change: a second round settles that.
        for _ in 0..<4 {
            guard try await mend(after, repair) else { break }
            try await activateRepaired()
            let last = after.report
            after = try await walk(nil)
            // What no rule mends stays, however often it is tried.
            if (after.report.corruptions, after.report.leaks, after.report.checkErrors) == (last.corruptions, last.leaks, last.checkErrors) { break }
        }
        var report = after.report
        report.messages = before.report.messages
        report.corruptionsFixed = max(0, before.report.corruptions - report.corruptions)
        report.leaksFixed = max(0, before.report.leaks - report.leaks)
        if report.corruptions == 0, report.checkErrors == 0 {
            try await clearMarks()
            try await activateRepaired()
        }
        return report
    }

    /// Bitmaps whose directory cannot be read are known to nobody, and stay as they are.
    private func markDamagedBitmapsOnDisk() async throws(BlockError) {
        if !bitmapStore.content.withLock({ $0.isLoaded }) {
            do throws(BlockError) { try await loadBitmaps() } catch { return }
        }
        try await markDamagedBitmaps()
    }

    private func walk(_ progress: (@Sendable (_ done: Int, _ total: Int) -> Void)?) async throws(BlockError) -> CheckWalk {
        let (l1, tables) = state.withLock { ($0.l1, HeaderTables($0)) }
        let table = try await file.readTable(at: tables.refcountTableOffset, (tables.refcountTableClusters << geometry.clusterBits) >> 3)
        var walk = CheckWalk(file: file, opened: opened, tables: tables, refcountTable: table)
        walk.progress = progress
        walk.bitmaps = bitmapDirectoryPlace
        try await walk.run(l1: l1)
        return walk
    }

    /// One round of a repair.
    /// - Returns: whether anything was done.
    private func mend(_ walk: CheckWalk, _ repair: CheckRepair) async throws(BlockError) -> Bool {
        let report = walk.report
        if report.corruptions == 0, report.leaks == 0, report.checkErrors == 0 { return false }
        try await markDamagedBitmapsOnDisk()
        let isOnlyLeaks = report.corruptions == walk.wrongFlags && report.checkErrors == 0
        if repair.contains(.errors) || (repair.contains(.leaks) && isOnlyLeaks) {
            var repair = ImageRepair(walk)
            let l1 = state.withLock { $0.l1 }
            _ = try await repair.run(l1: l1, keepsMapping: false)
            return true
        }
        // Clusters that seem to be lost may be what a damaged entry ought to name.
        guard repair.contains(.leaks), report.leaks > 0, walk.isWholeMappingKnown else { return false }
        try await freeLeakedClusters(walk)
        return true
    }
}

extension BlockChild {
    /// Reads a table of 64-bit numbers.
    func readWords(at offset: HostOffset, _ count: Int) async throws(BlockError) -> [UInt64] {
        let buffer = IOBuffer(byteCount: count * 8)
        try await read(buffer.vector, at: offset.asGuest)
        return buffer.bigEndianWords(count)
    }

    /// The same as far as the table lies in the file: behind its end there are zeroes, however much of them somebody claims.
    func readTable(at offset: HostOffset, _ count: Int) async throws(BlockError) -> [UInt64] {
        try await readWords(at: offset, max(0, min(count, (length - offset.rawValue).dividedRoundingUp(by: 8))))
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
    /// Where the bitmap directory lies.
    var bitmaps: BitmapsExtension?
    var report = CheckReport()
    /// Corruptions that are nothing but copied flags.
    private(set) var wrongFlags = 0
    /// How tables are mended before what they refer to is counted; nil for a mere check.
    var rules: RepairRules?
    /// Entries and tables that no rule mends.
    private(set) var damage = 0
    /// Told how many L1 entries of how many have been looked at.
    var progress: (@Sendable (_ done: Int, _ total: Int) -> Void)?
    /// Refcount blocks that were read, by table index; emptied when they take too much memory.
    var blocks: [Int: RefcountBlock] = [:]
    /// The one that was asked for last, which most references ask for again; its index is -1 when there is none.
    var latestBlock: (index: Int, block: RefcountBlock)

    private static let maximumMessages = 1000
    /// The most bytes that a snapshot table or a bitmap directory is read for.
    static let maximumTableBytes = 64 << 20

    init(file: BlockChild, opened: ValidatedHeader, tables: HeaderTables, refcountTable: [UInt64]) {
        self.file = file
        self.opened = opened
        self.tables = tables
        geometry = opened.geometry
        latestBlock = (-1, RefcountBlock(emptyFor: opened.geometry))
        fileLength = file.length
        self.refcountTable = refcountTable
        bitmaps = opened.bitmapsInForce
        report.totalClusters = geometry.clusters(tables.virtualSize)
        report.allocatedClusters = 0
        report.fragmentedClusters = 0
        report.compressedClusters = 0
    }

    mutating func run(l1: [UInt64]) async throws(BlockError) {
        try await countEverythingButRefcounts(l1: l1)
        try count(tables.refcountTableOffset.rawValue, tables.refcountTableClusters << geometry.clusterBits)
        try countRefcountBlocks()
        try await compare()
    }

    mutating func countEverythingButRefcounts(l1: [UInt64]) async throws(BlockError) {
        try count(0, geometry.clusterSize)
        if let place = opened.extensions.encryptionHeader { try count(Int(place.offset), Int(clamping: place.length)) }
        try count(tables.l1Offset.rawValue, l1.count * 8)
        try await walk(l1, isActive: true)
        try await walkSnapshots()
        try await walkBitmaps()
    }

    private mutating func wrongFlag(_ message: String) {
        wrongFlags += 1
        corruption(message)
    }

    /// Something that no rule mends.
    private mutating func damage(_ message: String) {
        damage += 1
        corruption(message)
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
        let (first, last) = (offset >> geometry.clusterBits, (end - 1) >> geometry.clusterBits)
        if rules == nil, geometry.refcountBits < 16 { return try countNarrow(first...last) }
        if first == last { return try references.add(first) }
        for cluster in first...last { try references.add(cluster) }
    }

    /// The same where refcounts may be too narrow for the references that there are.
    private mutating func countNarrow(_ clusters: ClosedRange<Int>) throws(BlockError) {
        for cluster in clusters {
            if references.count(cluster) < geometry.maximumRefcount {
                try references.add(cluster)
            } else {
                corruption("overflow cluster offset=\(hex(cluster << geometry.clusterBits))")
            }
        }
    }

    // MARK: The mapping

    private mutating func walk(_ table: [UInt64], isActive: Bool) async throws(BlockError) {
        var l1 = table
        if let rules { damage += rules.fix(l1: &l1) }
        for (index, bits) in l1.enumerated() where bits != 0 {
            if Task.isCancelled { throw BlockError(.cancelled, "The check was cancelled") }
            if isActive { progress?(index, l1.count) }
            let entry = L1Entry(bits: bits)
            if entry.hasReservedBits { corruption("found L1 entry with reserved bits set: \(hex(bits))") }
            // An entry that is nothing but a flag names the header. QEMU's check takes that for a table.
            try count(entry.tableOffset, geometry.clusterSize)
            if !entry.tableOffset.isAligned(to: geometry.clusterSize) {
                if rules == nil { damage += 1 }
                corruption("l2_offset=\(hex(entry.tableOffset)): Table is not cluster aligned; L1 entry corrupted")
            }
            if isActive, entry.tableOffset != 0, let refcount = try await refcount(entry.tableOffset >> geometry.clusterBits), (refcount == 1) != entry.isCopied {
                wrongFlag("OFLAG_COPIED L2 cluster: l1_index=\(index) l1_entry=\(hex(bits)) refcount=\(refcount)")
            }
            // What lies where a table cannot lie says nothing, but a check counts it as QEMU's does.
            if rules != nil, !entry.tableOffset.isAligned(to: geometry.clusterSize) { continue }
            // A table beyond the end of the file reads as zeroes.
            if entry.tableOffset < fileLength { try await walkTable(entry.tableOffset, isActive: isActive) }
        }
    }

    private mutating func walkTable(_ offset: Int, isActive: Bool) async throws(BlockError) {
        var table: [UInt64]
        do { table = try await file.readWords(at: HostOffset(offset), geometry.clusterSize / 8) } catch {
            report.checkErrors += 1
            return note("ERROR reading the L2 table at \(hex(offset)): \(error)")
        }
        if let rules { damage += rules.fix(l2: &table) }
        var expected = 0
        for position in stride(from: 0, to: table.count, by: geometry.l2EntryWords) {
            let bits = table[position]
            let entry = L2Entry(bits: bits, subclusters: SubclusterBitmap(bits: geometry.hasSubclusters ? table[position + 1] : 0))
            if bits == 0 && entry.subclusters.bits == 0 { continue }
            if entry.isCompressed {
                try countCompressed(entry, at: position / geometry.l2EntryWords, isActive: isActive)
                continue
            }
            if entry.hasReservedBits { corruption("found l2 entry with reserved bits set: \(hex(bits))") }
            if geometry.hasSubclusters { checkSubclusters(entry) }
            guard entry.hasHost(in: geometry) else { continue }
            let host = entry.hostOffset
            // Zeroes at offset zero have no place, in a data file neither.
            if host == 0, entry.readsAsZero, !geometry.hasSubclusters { continue }
            if !host.isAligned(to: geometry.clusterSize) {
                corruption("offset=\(hex(host)): Cluster is not properly aligned; L2 entry corrupted.")
            }
            if isActive {
                report.allocatedClusters? += 1
                if expected != 0, host != expected { report.fragmentedClusters? += 1 }
                expected = host &+ geometry.clusterSize
                if geometry.hasExternalData {
                    // Nobody else can refer to a cluster of a data file.
                    if !entry.isCopied { wrongFlag("OFLAG_COPIED data cluster: l2_entry=\(hex(bits)) refcount=1") }
                } else if offset != 0 {
                    let cluster = host >> geometry.clusterBits
                    // Nearly always at hand, and an await for each cluster of the disk would be most of the check.
                    var refcount = latestRefcount(cluster)
                    if refcount == nil { refcount = try await self.refcount(cluster) }
                    if let refcount, (refcount == 1) != entry.isCopied { wrongFlag("OFLAG_COPIED data cluster: l2_entry=\(hex(bits)) refcount=\(refcount)") }
                }
            }
            if !geometry.hasExternalData { try count(host, geometry.clusterSize) }
        }
    }

    private mutating func checkSubclusters(_ entry: L2Entry) {
        let bitmap = entry.subclusters
        if bitmap.allocated & bitmap.zero != 0 || (bitmap.allocated != 0 && !entry.hasHost(in: geometry)) {
            damage("invalid subcluster bitmap \(hex(bitmap.bits)) of l2_entry=\(hex(entry.bits))")
        }
    }

    private mutating func countCompressed(_ entry: L2Entry, at index: Int, isActive: Bool) throws(BlockError) {
        if entry.isCopied { corruption("coffset=\(hex(entry.bits)): copied flag must never be set for compressed clusters") }
        // Its stream could lie nowhere.
        if geometry.hasExternalData { return corruption("compressed cluster \(index) with data file, entry=\(hex(entry.bits))") }
        if entry.subclusters.bits != 0 { return corruption("compressed cluster \(index) with non-zero subcluster allocation bitmap, entry=\(hex(entry.bits))") }
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
        let (records, byteCount, isTruncated) = try await Self.readSnapshots(of: file, tables)
        if isTruncated { corruption("snapshot table is truncated behind \(records.count) of \(tables.snapshotCount) entries") }
        for (number, read) in records.enumerated() {
            var record = read
            if record.extraData.count > SnapshotRecord.maximumExtraSize, rules == nil { corruption("snapshot table entry \(number) has too much extra metadata") }
            if opened.header.version >= 3, record.extraData.count < 16, rules == nil { corruption("snapshot table entry \(number) is incomplete") }
            if let rules { record = rules.fixed(record, diskSize: tables.virtualSize) ?? record }
            guard Self.hasUsableTable(record, geometry) else {
                damage("snapshot \(record.identifier): L1 table offset \(hex(record.l1TableOffset)) or size \(record.l1Size) is invalid; snapshot table entry corrupted")
                continue
            }
            try count(Int(record.l1TableOffset), Int(record.l1Size) * 8)
            try await walk(try await file.readTable(at: HostOffset(Int(record.l1TableOffset)), Int(record.l1Size)), isActive: false)
        }
        try count(tables.snapshotTableOffset.rawValue, byteCount)
    }

    /// The records of the snapshot table and how many bytes they take.
    static func readSnapshots(of file: BlockChild, _ tables: HeaderTables) async throws(BlockError) -> (records: [SnapshotRecord], byteCount: Int, isTruncated: Bool) {
        let start = tables.snapshotTableOffset.rawValue
        // Behind the end of the file there are zeroes.
        let buffer = IOBuffer(byteCount: min(maximumTableBytes, max(0, file.length - start) + tables.snapshotCount * SnapshotRecord.fixedSize))
        defer { withExtendedLifetime(buffer) {} }
        try await file.read(buffer.vector, at: GuestOffset(start))
        var (records, position): ([SnapshotRecord], Int) = ([], 0)
        for _ in 0..<tables.snapshotCount {
            do throws(DecodingFailure) {
                let at = position
                let record = try buffer.withBytes { bytes throws(DecodingFailure) in try SnapshotRecord(decoding: bytes, at: at) }
                position += record.encodedSize
                records.append(record)
            } catch { return (records, position, true) }
        }
        return (records, position, false)
    }

    static func hasUsableTable(_ record: SnapshotRecord, _ geometry: ClusterGeometry) -> Bool {
        record.l1TableOffset <= UInt64(Int.max >> 1) && Int(record.l1TableOffset).isAligned(to: geometry.clusterSize)
            && Int(record.l1Size) <= ClusterGeometry.maximumL1Bytes / 8
    }

    /// Whether every reference was found: nothing unreadable, nothing that could be something else.
    var isWholeMappingKnown: Bool { damage == 0 && report.checkErrors == 0 && refcountTable.indices.allSatisfy { refcountTable[$0] & ~RefcountState.offsetMask == 0 } }

    private mutating func walkBitmaps() async throws(BlockError) {
        guard let bitmaps, bitmaps.count > 0 else { return }
        guard bitmaps.directoryOffset <= UInt64(Int.max >> 1), bitmaps.directorySize <= UInt64(Self.maximumTableBytes) else {
            return damage("the bitmap directory's offset or size is invalid")
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
            } catch { return damage("bitmap directory is truncated: \(error)") }
            position += record.encodedSize
            guard record.tableOffset <= UInt64(Int.max >> 1), Int(record.tableSize) * 8 <= Self.maximumTableBytes else {
                damage("a bitmap table's offset or size is invalid")
                continue
            }
            try count(Int(record.tableOffset), Int(record.tableSize) * 8)
            for entry in try await file.readTable(at: HostOffset(Int(record.tableOffset)), Int(record.tableSize)) {
                let offset = Int(entry & BitmapRecord.tableOffsetMask)
                if offset != 0 { try count(offset, geometry.clusterSize) }
            }
        }
    }
}
