import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization

extension QCOW2Driver {
    /// What must be done once before an image is written for the first time. Opening writes nothing, because permissions come later.
    ///
    /// - Autoclear bits that this driver does not maintain are cleared: what they vouch for is about to become wrong. Bitmaps are marked as in use.
    /// - The refcount table is read, and the host clusters of every table are noted, so that guest data never overwrites them.
    func prepareForWriting() async throws(BlockError) {
        let (isReady, isCorrupt, isInDoubt) = state.withLock { ($0.takesWrites, $0.isCorrupt, $0.headerInDoubt != nil) }
        if isCorrupt { throw BlockError(.corruptImage, "the image was found to be corrupt; it takes no more writes") }
        if state.withLock({ $0.showsSnapshot }) { throw BlockError(.readOnly, "the node shows a snapshot, which takes no writes") }
        if isInDoubt { try await restoreHeader() }
        if isReady { return }
        await preparation.lock()
        defer { preparation.unlock() }
        if state.withLock({ $0.takesWrites }) { return }
        if state.withLock({ $0.isReadyForWrites }) {
            try await markBitmapsInUse()
            state.withLock { $0.mustMarkBitmaps = false }
            return
        }
        guard !opened.header.incompatible.contains(.corrupt) else {
            throw BlockError(.accessDenied, "qcow2: a damaged image cannot be written to before it is repaired")
        }
        try refuseUnclearData()
        // An image that was opened for its metadata only has its bitmaps all the same.
        if opened.bitmapsInForce != nil, !bitmapStore.content.withLock({ $0.isLoaded }) { try await loadBitmaps() }
        try await markDamagedBitmaps()
        if opened.header.incompatible.contains(.dirty), !state.withLock({ $0.hasExactRefcounts }) { try await rebuildDirtyRefcounts() }

        let tables = state.withLock { HeaderTables($0) }
        for (name, offset) in [("L1", tables.l1Offset), ("refcount", tables.refcountTableOffset)] where offset.rawValue > file.length {
            throw BlockError(.corruptImage, "The \(name) table of the image lies at \(offset), beyond the end of the file")
        }
        let table = try await readRefcountTable()
        var metadata = try noteMetadata(tables, l1: state.withLock { $0.l1 }, refcountTable: table)
        await noteInactiveMetadata(tables, &metadata)
        if opened.header.autoclear != maintainedAutoclear {
            try await writeHeaderBytes(at: QCOW2Header.Field.autoclear, maintainedAutoclear.rawValue)
            try await file.flush()
        }
        try await markBitmapsInUse()
        let fileLength = file.length
        state.withLock { state in
            state.refcounts.table = table
            state.refcounts.fileLength = fileLength.roundedDown(to: geometry.clusterSize)
            state.refcounts.virginFrom = geometry.clusters(fileLength)
            state.metadataClusters = metadata
            state.isReadyForWrites = true
        }
    }

    /// The same for an image whose data file was not opened, because only its metadata was wanted.
    func refuseUnclearData() throws(BlockError) { try opened.refuseUnclearData(isDataFileGiven: externalData != nil || options.namesDataFile) }

    /// The refcounts of an image that was not closed may be older than its mapping: they are made anew from it, as QEMU does when it opens one. Requests
    /// that read go on meanwhile; the mapping stays where it is.
    private func rebuildDirtyRefcounts() async throws(BlockError) {
        let (l1, tables) = state.withLock { ($0.l1, HeaderTables($0)) }
        let table = try await readRefcountTable()
        do throws(BlockError) {
            var repair = ImageRepair(CheckWalk(file: file, opened: opened, tables: tables, refcountTable: table))
            let new = try await repair.run(l1: l1, keepsMapping: true)
            let end = file.length
            state.withLock { state in
                // The new blocks may be the last thing in the file: closing cuts off only what lies behind them.
                state.refcounts.highestEnd = max(state.refcounts.highestEnd, end)
                state.refcounts.tableOffset = new.refcountTableOffset
                state.refcounts.tableClusters = new.refcountTableClusters
                state.hasExactRefcounts = true
            }
        } catch { throw error.during("rebuilding the reference counts of an image that was not closed properly") }
    }

    func readRefcountTable() async throws(BlockError) -> [UInt64] {
        let (offset, clusters) = state.withLock { ($0.refcounts.tableOffset, $0.refcounts.tableClusters) }
        let byteCount = clusters << geometry.clusterBits
        let buffer = IOBuffer(byteCount: byteCount)
        file.reached(.reftableLoad)
        do { try await file.read(buffer.vector, at: offset.asGuest) } catch {
            throw error.during("Could not read the refcount table")
        }
        return buffer.bigEndianWords(byteCount / 8)
    }

    /// The host clusters that hold tables.
    /// - Throws: `.corruptImage` when two tables lie in one cluster: writing one would destroy the other.
    func noteMetadata(_ tables: HeaderTables, l1: [UInt64], refcountTable: [UInt64]) throws(BlockError) -> IntTable {
        var clusters = IntTable(capacity: 64 + l1.count / 2)
        func note(_ offset: UInt64, _ byteCount: Int, _ kind: MetadataKind) throws(BlockError) {
            guard offset <= UInt64(Int.max) else { return }
            let first = Int(offset) >> geometry.clusterBits
            for cluster in 0..<geometry.clusters(byteCount) {
                if let other = clusters.value(for: first + cluster) {
                    throw BlockError(.corruptImage, Contradiction.overlapsMetadata(HostOffset(Int(offset)), MetadataKind(rawValue: other)).message)
                }
                clusters.insert(first + cluster, kind)
            }
        }
        try note(0, 1, .mainHeader)
        if let place = opened.extensions.encryptionHeader { try note(place.offset, Int(place.length), .mainHeader) }
        try note(UInt64(tables.l1Offset.rawValue), l1.count * 8, .activeL1)
        try note(UInt64(tables.refcountTableOffset.rawValue), tables.refcountTableClusters << geometry.clusterBits, .refcountTable)
        if tables.snapshotCount > 0 { try note(UInt64(tables.snapshotTableOffset.rawValue), tables.snapshotCount * SnapshotRecord.fixedSize, .snapshotTable) }
        for run in bitmapClusters { try note(UInt64(run.first << geometry.clusterBits), run.count << geometry.clusterBits, .bitmapDirectory) }
        for entry in refcountTable where entry & RefcountState.offsetMask != 0 { try note(entry & RefcountState.offsetMask, 1, .refcountBlock) }
        for entry in l1 where L1Entry(bits: entry).tableOffset != 0 { try note(UInt64(L1Entry(bits: entry).tableOffset), 1, .activeL2) }
        return clusters
    }

    /// The same for what belongs to snapshots and bitmaps, as far as it is to be guarded. What cannot be read is not guarded; checking is the check's task.
    func noteInactiveMetadata(_ tables: HeaderTables, _ clusters: inout IntTable) async {
        let checks = state.withLock { $0.overlapChecks }
        func note(_ offset: Int, _ byteCount: Int, _ kind: MetadataKind) {
            let first = offset >> geometry.clusterBits
            for cluster in first..<(first + geometry.clusters(byteCount)) where !clusters.contains(cluster) { clusters.insert(cluster, kind) }
        }
        // Where it is by now: bitmaps may have come, gone and moved since the image was opened.
        if checks.contains(.bitmapDirectory), let bitmaps = bitmapDirectoryPlace,
            bitmaps.directoryOffset < UInt64(file.length), bitmaps.directorySize <= UInt64(CheckWalk.maximumTableBytes)
        {
            note(Int(bitmaps.directoryOffset), Int(bitmaps.directorySize), .bitmapDirectory)
        }
        guard tables.snapshotCount > 0, !checks.isDisjoint(with: [.inactiveL1, .inactiveL2]) else { return }
        do {
            for record in try await CheckWalk.readSnapshots(of: file, tables).records where CheckWalk.hasUsableTable(record, geometry) {
                note(Int(record.l1TableOffset), Int(record.l1Size) * 8, .inactiveL1)
                guard checks.contains(.inactiveL2) else { continue }
                for bits in try await file.readTable(at: HostOffset(Int(record.l1TableOffset)), Int(record.l1Size)) where L1Entry(bits: bits).tableOffset != 0 {
                    note(L1Entry(bits: bits).tableOffset, 1, .inactiveL2)
                }
            }
        } catch { return }
    }
}
