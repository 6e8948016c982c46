package import BlockGraph
import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

// Snapshots inside the image: an L1 table that keeps what the disk was. Source: docs/interop/qcow2, "Snapshots".

extension QCOW2Driver: Snapshotting {
    package func listSnapshots() async throws(BlockError) -> [SnapshotInfo] { try await readSnapshotTable().map(SnapshotInfo.init) }

    package func createSnapshot(named name: String, moment: SnapshotMoment) async throws(BlockError) -> SnapshotInfo {
        let name = Self.shortened(name)
        return try await rebuild { rebuild, snapshots throws(BlockError) in
            guard snapshots.count < ValidatedHeader.maximumSnapshots else { throw BlockError(.tooLarge, "The image has \(snapshots.count) snapshots, which is as many as there may be") }
            var (l1, diskSize) = state.withLock { ($0.l1, $0.virtualSize) }
            try await rebuild.countReferences(of: l1, by: 1)
            // The snapshot keeps the tables as they are; the disk gets copies where a flag must change.
            let kept = l1.map { $0 & ~L1Entry.copiedFlag }
            let keptOffset = try await rebuild.write(l1: kept)
            let record = SnapshotRecord(
                l1TableOffset: UInt64(keptOffset.rawValue), l1Size: UInt32(kept.count), identifier: Self.nextIdentifier(snapshots), name: name,
                dateSeconds: UInt32(truncatingIfNeeded: moment.seconds), dateNanoseconds: UInt32(truncatingIfNeeded: moment.nanoseconds),
                clockNanoseconds: UInt64(max(0, moment.vmClockNanoseconds)), diskSize: UInt64(diskSize), instructionCount: moment.instructionCount)
            try await putIntoForce(&rebuild, &l1, virtualSize: diskSize, snapshots: snapshots + [record])
            return SnapshotInfo(record)
        }
    }

    /// QEMU reads no more of a name, in bytes, and could not name a snapshot with a longer one.
    private static let longestName = 255

    /// The beginning of a name, as far as QEMU reads it. Unlike QEMU, which may store half a character, this ends with a whole one.
    private static func shortened(_ name: String) -> String {
        var end = name.startIndex
        for scalar in name.unicodeScalars.indices {
            let next = name.unicodeScalars.index(after: scalar)
            if name.utf8.distance(from: name.startIndex, to: next) > longestName { break }
            end = next
        }
        return String(name[..<end])
    }

    package func applySnapshot(_ selector: SnapshotSelector) async throws(BlockError) {
        try await rebuild { rebuild, snapshots throws(BlockError) in
            let record = snapshots[try selector.index(in: snapshots)]
            let old = state.withLock { $0.l1 }
            let size = try Self.diskSize(of: record, now: length, geometry)
            var l1 = try await readL1(of: record)
            let needed = geometry.l1Entries(forVirtualSize: size)
            if l1.count < needed { l1 += [UInt64](repeating: 0, count: needed - l1.count) }
            // Down before up: a count at its limit has room again.
            try await rebuild.countReferences(of: old, by: -1)
            try await rebuild.countReferences(of: l1, by: 1)
            try await putIntoForce(&rebuild, &l1, virtualSize: size, snapshots: nil)
        }
    }

    package func deleteSnapshot(_ selector: SnapshotSelector) async throws(BlockError) -> SnapshotInfo {
        try await rebuild { rebuild, snapshots throws(BlockError) in
            var snapshots = snapshots
            let record = snapshots.remove(at: try selector.index(in: snapshots))
            let kept = try await readL1(of: record)
            try await rebuild.countReferences(of: kept, by: -1)
            try await rebuild.release(HostOffset(Int(record.l1TableOffset)), byteCount: kept.count * 8)
            var l1 = state.withLock { $0.l1 }
            try await putIntoForce(&rebuild, &l1, virtualSize: length, snapshots: snapshots)
            return SnapshotInfo(record)
        }
    }

    package func loadSnapshot(_ selector: SnapshotSelector) async throws(BlockError) {
        guard !state.withLock({ $0.isReadyForWrites }) else { throw BlockError(.permissionConflict, "Only a read-only node can show one of its snapshots") }
        let snapshots = try await readSnapshotTable()
        let record = snapshots[try selector.index(in: snapshots)]
        let size = try Self.diskSize(of: record, now: length, geometry)
        var l1 = try await readL1(of: record)
        let needed = geometry.l1Entries(forVirtualSize: size)
        if l1.count < needed { l1 += [UInt64](repeating: 0, count: needed - l1.count) }
        let shown = l1
        state.withLock { state in
            state.l1 = shown
            state.virtualSize = size
            state.l2 = options.emptyL2Cache(forVirtualSize: size, geometry)
            state.showsSnapshot = true
        }
        lastDecompressed.withLock { $0 = nil }
        setLength(size)
    }

    // MARK: Parts

    /// Runs `body` with everything written back and nobody else at the tables, and gives back what it took when it fails.
    private func rebuild<T: Sendable>(
        _ body: (inout TableRebuild, [SnapshotRecord]) async throws(BlockError) -> T
    ) async throws(BlockError) -> T {
        if opened.header.incompatible.contains(.externalDataFile) {
            throw BlockError(.unsupported, "Snapshots inside the image are not supported with an external data file")
        }
        try await prepareForWriting()
        await resizing.lock()
        defer { resizing.unlock() }
        try await settleIfWritten()
        await tables.lock()
        defer { tables.unlock() }
        await commits.lock()
        defer { commits.unlock() }
        let snapshots = try await readSnapshotTable()
        var rebuild = TableRebuild(self)
        do throws(BlockError) { return try await body(&rebuild, snapshots) } catch {
            rebuild.abandon()
            throw error
        }
    }

    /// The last part of every change: flags, the disk's own L1 table, the snapshot table, the switch.
    /// - Parameter snapshots: nil when they stay.
    private func putIntoForce(
        _ rebuild: inout TableRebuild, _ l1: inout [UInt64], virtualSize: Int, snapshots: [SnapshotRecord]?
    ) async throws(BlockError) {
        let old = state.withLock { HeaderTables($0) }
        let isOther = try await rebuild.refreshCopiedFlags(&l1)
        var l1Offset = old.l1Offset
        if isOther || l1 != state.withLock({ $0.l1 }) {
            l1Offset = try await rebuild.write(l1: l1)
            try await rebuild.release(old.l1Offset, byteCount: old.l1Size * 8)
        }
        var tableOffset = old.snapshotTableOffset
        var count = old.snapshotCount
        if let snapshots {
            tableOffset = try await rebuild.write(snapshots: snapshots)
            count = snapshots.count
            if old.snapshotCount > 0 {
                try await rebuild.release(old.snapshotTableOffset, byteCount: try await readSnapshotTable().reduce(0) { $0 + $1.encodedSize })
            }
        }
        try await rebuild.switchOver(l1: l1) { tables in
            tables.virtualSize = virtualSize
            tables.l1Offset = l1Offset
            tables.snapshotCount = count
            tables.snapshotTableOffset = tableOffset
        }
    }

    /// One more than the highest number that is in use as an identifier.
    private static func nextIdentifier(_ snapshots: [SnapshotRecord]) -> String {
        String((snapshots.compactMap { UInt64($0.identifier) }.filter { $0 < .max }.max() ?? 0) + 1)
    }

    private static func diskSize(of record: SnapshotRecord, now: Int, _ geometry: ClusterGeometry) throws(BlockError) -> Int {
        let size = record.diskSize ?? UInt64(now)
        guard size <= UInt64(geometry.maximumVirtualSize) else {
            throw BlockError(.corruptImage, "Snapshot '\(record.name)' claims a disk of \(size) bytes, which cannot be")
        }
        return Int(size).roundedDown(to: 512)
    }

    private func readL1(of record: SnapshotRecord) async throws(BlockError) -> [UInt64] {
        let offset = record.l1TableOffset
        guard Int(record.l1Size) <= ClusterGeometry.maximumL1Bytes / 8 else {
            throw BlockError(.corruptImage, "The L1 table of snapshot '\(record.name)' is too large: \(record.l1Size) entries")
        }
        if record.l1Size == 0 { return [] }
        guard offset <= UInt64(file.length), offset != 0, Int(offset).isAligned(to: geometry.clusterSize) else {
            throw BlockError(.corruptImage, "The L1 table of snapshot '\(record.name)' cannot lie at 0x\(String(offset, radix: 16))")
        }
        do { return try await file.readWords(at: HostOffset(Int(offset)), Int(record.l1Size)) } catch {
            throw error.during("Could not read the L1 table of snapshot '\(record.name)'")
        }
    }
}

extension SnapshotSelector {
    /// - Throws: `.notFound` when none of the records is meant.
    fileprivate func index(in records: [SnapshotRecord]) throws(BlockError) -> Int {
        guard let index = records.firstIndex(where: { (id == nil || $0.identifier == id) && (name == nil || $0.name == name) }), id != nil || name != nil else {
            throw BlockError(.notFound, "snapshot not found")
        }
        return index
    }
}
