import BlockGraph
import IOCore
import StrataBase
import Synchronization

// Repairing. The refcounts are made anew from the references that were counted, in clusters behind the end of the file; so are L1, L2 and snapshot tables
// where an entry or a copied flag must change. One write of the header puts all of it into force and clears the marks. Until then the image is what it
// was, so a repair that is interrupted has changed nothing.

extension QCOW2Driver {
    /// Lowers the refcounts of clusters that nothing refers to. Any part of that is as good as all of it.
    func freeLeakedClusters(_ walk: CheckWalk) async throws(BlockError) {
        for index in walk.refcountTable.indices where walk.hasBlock(index) {
            let offset = walk.refcountTable[index] & RefcountState.offsetMask
            guard offset <= UInt64(Int.max), Int(offset).isAligned(to: geometry.clusterSize), Int(offset) < walk.fileLength else { continue }
            // Two entries may name one block; the first is as good a reason as any to leave it alone.
            guard walk.references.count(Int(offset) >> geometry.clusterBits) == 1 else { continue }
            let buffer = IOBuffer(byteCount: geometry.clusterSize)
            defer { withExtendedLifetime(buffer) {} }
            try await file.read(buffer.vector, at: GuestOffset(Int(offset)))
            var block = RefcountBlock(bytes: buffer.copyToArray(), order: geometry.refcountOrder)
            var hasChanged = false
            for position in 0..<geometry.refcountsPerBlock
            where block[position] > 0 && walk.references.count(index << geometry.refcountBlockBits + position) == 0 {
                block[position] = 0
                hasChanged = true
            }
            guard hasChanged else { continue }
            let new = IOBuffer(copying: block.bytes)
            defer { withExtendedLifetime(new) {} }
            try await file.write(new.vector, at: GuestOffset(Int(offset)))
        }
        try await file.flush()
    }

    /// Clears the marks of an image that turned out to be in order.
    func clearMarks() async throws(BlockError) {
        let marks = opened.header.incompatible
        guard opened.header.version >= 3, !marks.isDisjoint(with: [.dirty, .corrupt]) else { return }
        try await file.flush()
        try await writeHeaderBytes(at: QCOW2Header.Field.incompatible, marks.subtracting([.dirty, .corrupt]).rawValue)
        try await file.flush()
    }
}

/// One repair of one image.
struct ImageRepair {
    let file: BlockChild
    let opened: ValidatedHeader
    let old: HeaderTables
    let geometry: ClusterGeometry
    private let rules: RepairRules
    /// What the mended tables refer to.
    private var references = ReferenceCounts()
    /// Things that stay wrong. While there are any, no cluster becomes free but those of tables that the repair replaces: it may hold what they ought to name.
    private var damage = 0
    /// Clusters of tables that the repair replaces.
    private var released = Set<Int>()
    /// The refcounts as they are, for that case.
    private var present: CheckWalk
    /// The next free cluster behind the file.
    private var next: Int
    private var fileEnd: Int
    /// L2 tables that were written anew, by their old offset.
    private var replacements: [Int: HostOffset] = [:]

    private static let maximumReplacements = 1 << 22

    init(_ walk: CheckWalk) {
        file = walk.file
        opened = walk.opened
        old = walk.tables
        geometry = walk.geometry
        rules = RepairRules(
            geometry: walk.geometry, version: walk.opened.header.version, fileLength: walk.fileLength,
            hasExternalData: walk.opened.header.incompatible.contains(.externalDataFile))
        present = walk
        next = geometry.clusters(walk.fileLength)
        fileEnd = walk.fileLength
    }

    /// - Parameters:
    ///   - l1: the active table.
    ///   - keepsMapping: refuse instead of moving any table but those of the refcounts.
    /// - Returns: what the header names now.
    mutating func run(l1: [UInt64], keepsMapping: Bool) async throws(BlockError) -> HeaderTables {
        var walk = CheckWalk(file: file, opened: opened, tables: old, refcountTable: [])
        walk.rules = rules
        walk.bitmaps = present.bitmaps
        try await walk.countEverythingButRefcounts(l1: l1)
        references = walk.references
        damage = walk.damage + walk.report.checkErrors
        next = max(next, references.end)

        var new = old
        var l1 = l1
        if !keepsMapping { try await mendInPlace(&l1) }
        var active = l1
        _ = rules.fix(l1: &active)
        try await replaceTables(&active, isActive: true)
        var records: [SnapshotRecord]?
        try await mendSnapshots(&records)
        for index in active.indices where L1Entry(bits: active[index]).tableOffset != 0 {
            let isCopied = references.count(L1Entry(bits: active[index]).tableOffset >> geometry.clusterBits) == 1
            if isCopied != L1Entry(bits: active[index]).isCopied { active[index] ^= L1Entry.copiedFlag }
        }
        if active != l1 {
            let place = try await place(geometry.clusters(active.count * 8))
            release(old.l1Offset.rawValue >> geometry.clusterBits, geometry.clusters(active.count * 8))
            try await write(active, at: place, clusters: geometry.clusters(active.count * 8))
            new.l1Offset = place
        }
        if let records {
            let bytes = records.flatMap { $0.encoded() }
            let place = try await place(max(1, geometry.clusters(bytes.count)))
            try await write(bytes, at: place)
            new.snapshotTableOffset = records.isEmpty ? HostOffset(0) : place
            new.snapshotCount = records.count
        }
        if keepsMapping, new != old {
            throw BlockError(.accessDenied, "qcow2: the tables of the image must be repaired before it is written to", hint: "Repair it (qemu-img check -r all).")
        }
        (new.refcountTableOffset, new.refcountTableClusters) = try await writeRefcounts()
        try await file.flush()
        try await putIntoForce(new)
        return new
    }

    // MARK: Mapping

    /// Mends what can be mended entry by entry, before the file grows: what an entry names behind its end is zeroes now and must not become something else.
    /// Each entry is right before and after, so a crash in between is no harm. Tables that something else lies in are left to `replaceTables`.
    private mutating func mendInPlace(_ l1: inout [UInt64]) async throws(BlockError) {
        try await mendInPlace(&l1, at: old.l1Offset)
        for record in try await CheckWalk.readSnapshots(of: file, old).records where CheckWalk.hasUsableTable(record, geometry) {
            var table = try await file.readTable(at: HostOffset(Int(record.l1TableOffset)), Int(record.l1Size))
            try await mendInPlace(&table, at: HostOffset(Int(record.l1TableOffset)))
        }
        try await file.flush()
    }

    private func mendInPlace(_ l1: inout [UInt64], at offset: HostOffset) async throws(BlockError) {
        var mended = l1
        _ = rules.fix(l1: &mended)
        for bits in mended where bits != 0 {
            let table = L1Entry(bits: bits).tableOffset
            guard table != 0, table.isAligned(to: geometry.clusterSize), references.count(table >> geometry.clusterBits) == 1 else { continue }
            let words = try await file.readWords(at: HostOffset(table), geometry.clusterSize / 8)
            var new = words
            _ = rules.fix(l2: &new)
            try await replace(words, by: new, at: HostOffset(table))
        }
        let first = offset.rawValue >> geometry.clusterBits
        guard (first..<(first + geometry.clusters(l1.count * 8))).allSatisfy({ references.count($0) == 1 }) else { return }
        try await replace(l1, by: mended, at: offset)
        l1 = mended
    }

    /// Writes the entries that have changed, each by itself.
    private func replace(_ old: [UInt64], by new: [UInt64], at offset: HostOffset) async throws(BlockError) {
        for index in old.indices where old[index] != new[index] {
            let buffer = IOBuffer(byteCount: 8)
            defer { withExtendedLifetime(buffer) {} }
            buffer.withMutableBytes { $0.setBigEndian(new[index], at: 0) }
            try await file.write(buffer.vector, at: (offset + index * 8).asGuest)
        }
    }

    /// Writes the L2 tables anew of which something must change, and lets the L1 table name them.
    private mutating func replaceTables(_ l1: inout [UInt64], isActive: Bool) async throws(BlockError) {
        for index in l1.indices {
            let entry = L1Entry(bits: l1[index])
            guard entry.tableOffset != 0, entry.tableOffset.isAligned(to: geometry.clusterSize) else { continue }
            if Task.isCancelled { throw BlockError(.cancelled, "The repair was cancelled") }
            if replacements[entry.tableOffset] == nil {
                let words = try await file.readWords(at: HostOffset(entry.tableOffset), geometry.clusterSize / 8)
                var mended = words
                _ = rules.fix(l2: &mended)
                if isActive { setCopiedFlags(&mended) }
                if mended == words { continue }
                guard replacements.count < Self.maximumReplacements else { throw BlockError(.tooLarge, "The image has too many damaged tables to be repaired") }
                let place = try await place(1, references: 0)
                try await write(mended, at: place, clusters: 1)
                replacements[entry.tableOffset] = place
            }
            guard let place = replacements[entry.tableOffset] else { continue }
            release(entry.tableOffset >> geometry.clusterBits, 1)
            try references.add(place.rawValue >> geometry.clusterBits)
            l1[index] = L1Entry(table: place, copied: false).bits
        }
    }

    private func setCopiedFlags(_ words: inout [UInt64]) {
        for position in stride(from: 0, to: words.count, by: geometry.l2EntryWords) {
            let entry = L2Entry(bits: words[position])
            if entry.isCompressed || entry.hostOffset == 0 { continue }
            if rules.hasExternalData {
                words[position] |= L2Entry.copiedFlag
            } else if (references.count(entry.hostOffset >> geometry.clusterBits) == 1) != entry.isCopied {
                words[position] ^= L2Entry.copiedFlag
            }
        }
    }

    /// Does the same for the tables of snapshots.
    /// - Parameter records: the snapshot table, if it must be written anew.
    private mutating func mendSnapshots(_ changed: inout [SnapshotRecord]?) async throws(BlockError) {
        if old.snapshotCount == 0 { return }
        var records = try await CheckWalk.readSnapshots(of: file, old).records
        var hasChanged = records.count < old.snapshotCount
        let tableClusters = geometry.clusters(records.reduce(0) { $0 + $1.encodedSize })
        for number in records.indices {
            if let mended = rules.fixed(records[number], diskSize: old.virtualSize) {
                records[number] = mended
                hasChanged = true
            }
            let record = records[number]
            guard CheckWalk.hasUsableTable(record, geometry) else { continue }
            let words = try await file.readTable(at: HostOffset(Int(record.l1TableOffset)), Int(record.l1Size))
            var mended = words
            _ = rules.fix(l1: &mended)
            try await replaceTables(&mended, isActive: false)
            if mended == words { continue }
            let clusters = geometry.clusters(Int(record.l1Size) * 8)
            let place = try await place(clusters)
            try await write(mended, at: place, clusters: clusters)
            release(Int(record.l1TableOffset) >> geometry.clusterBits, clusters)
            records[number].l1TableOffset = UInt64(place.rawValue)
            hasChanged = true
        }
        guard hasChanged else { return }
        release(old.snapshotTableOffset.rawValue >> geometry.clusterBits, tableClusters)
        changed = records
    }

    /// Takes a reference away from clusters whose table now lies elsewhere.
    private mutating func release(_ first: Int, _ count: Int) {
        references.remove(first, count)
        released.formUnion(first..<first + count)
    }

    // MARK: Refcounts

    private mutating func writeRefcounts() async throws(BlockError) -> (HostOffset, Int) {
        released.formUnion(present.refcountStructures)
        var indexes = Set(references.chunkStarts.filter { references.hasAny($0) }.map { $0 >> geometry.refcountBlockBits })
        if damage > 0 { indexes.formUnion(present.refcountTable.indices.filter { present.hasBlock($0) }) }
        // The blocks and the table count themselves.
        var (clusters, tableClusters) = (0, 0)
        while true {
            let wanted = indexes.count
            let last = indexes.max() ?? 0
            tableClusters = max(1, geometry.clusters((last + 1) * 8))
            clusters = wanted + tableClusters
            for cluster in stride(from: next, to: next + clusters, by: geometry.refcountsPerBlock) { indexes.insert(cluster >> geometry.refcountBlockBits) }
            indexes.insert((next + clusters - 1) >> geometry.refcountBlockBits)
            if indexes.count == wanted, max(1, geometry.clusters(((indexes.max() ?? 0) + 1) * 8)) == tableClusters { break }
        }
        guard tableClusters << geometry.clusterBits <= ClusterGeometry.maximumRefcountTableBytes else {
            throw BlockError(.tooLarge, "The refcount table that the image needs would be larger than \(ClusterGeometry.maximumRefcountTableBytes) bytes")
        }
        let table = try await place(tableClusters)
        var words = [UInt64](repeating: 0, count: tableClusters * geometry.clusterSize / 8)
        let sorted = indexes.sorted()
        let first = try await place(sorted.count)
        for (number, index) in sorted.enumerated() {
            if Task.isCancelled { throw BlockError(.cancelled, "The repair was cancelled") }
            let place = first + number << geometry.clusterBits
            words[index] = UInt64(place.rawValue)
            try await write(try await block(index).bytes, at: place)
        }
        try await write(words, at: table, clusters: tableClusters)
        return (table, tableClusters)
    }

    private mutating func block(_ index: Int) async throws(BlockError) -> RefcountBlock {
        var block = RefcountBlock(emptyFor: geometry)
        let start = index << geometry.refcountBlockBits
        for position in 0..<geometry.refcountsPerBlock {
            var count = UInt64(references.count(start + position))
            if count == 0, damage > 0, !released.contains(start + position), (start + position) << geometry.clusterBits < present.fileLength {
                count = try await present.refcount(start + position) ?? 0
            }
            if count == 0 { continue }
            guard count <= geometry.maximumRefcount else {
                throw BlockError(.corruptImage, "Cluster \(start + position) has \(count) references, which is more than \(geometry.refcountBits) bits can count")
            }
            block[position] = count
        }
        return block
    }

    // MARK: Writing

    /// Takes clusters behind the end of the file.
    private mutating func place(_ count: Int, references number: Int = 1) async throws(BlockError) -> HostOffset {
        let start = next
        guard start + count < 1 << (56 - geometry.clusterBits) else { throw BlockError(.tooLarge, "The image file cannot grow any further") }
        next += count
        if number > 0 { for cluster in start..<next { try references.add(cluster) } }
        let end = next << geometry.clusterBits
        if end > fileEnd {
            fileEnd = end + min(max(end / 8, 1 << 20), 64 << 20).roundedUp(to: geometry.clusterSize)
            do { try await file.resize(to: fileEnd, exact: false) } catch {
                fileEnd = end
                do { try await file.resize(to: end, exact: false) } catch { throw error.during("growing the image file to \(end) bytes") }
            }
        }
        return HostOffset(start << geometry.clusterBits)
    }

    private func write(_ words: [UInt64], at offset: HostOffset, clusters: Int) async throws(BlockError) {
        let buffer = IOBuffer(zeroed: clusters << geometry.clusterBits)
        defer { withExtendedLifetime(buffer) {} }
        buffer.withMutableBytes { bytes in for (index, word) in words.enumerated() { bytes.setBigEndian(word, at: index * 8) } }
        try await file.write(buffer.vector, at: offset.asGuest)
    }

    private func write(_ bytes: [UInt8], at offset: HostOffset) async throws(BlockError) {
        let buffer = IOBuffer(copying: bytes + [UInt8](repeating: 0, count: bytes.count.roundedUp(to: geometry.clusterSize) - bytes.count))
        defer { withExtendedLifetime(buffer) {} }
        try await file.write(buffer.vector, at: offset.asGuest)
    }

    /// One write: tables and marks. They lie in one sector.
    private func putIntoForce(_ new: HeaderTables) async throws(BlockError) {
        var bytes = new.encoded(encryptionMethod: opened.header.encryptionMethod)
        if opened.header.version >= 3 {
            var marks = opened.header.incompatible.subtracting(.dirty)
            if damage == 0 { marks.remove(.corrupt) }
            bytes += [UInt8](repeating: 0, count: 8)
            bytes.setBigEndian(marks.rawValue, at: bytes.count - 8)
        }
        let buffer = IOBuffer(copying: bytes)
        defer { withExtendedLifetime(buffer) {} }
        do {
            try await file.write(buffer.vector, at: GuestOffset(QCOW2Header.Field.virtualSize))
            try await file.flush()
        } catch { throw error.during("updating the qcow2 header") }
        // What was taken ahead of need and what the file had behind its last cluster is given back.
        do { try await file.resize(to: next << geometry.clusterBits) } catch {
            // A longer file is as good an image.
        }
    }
}
