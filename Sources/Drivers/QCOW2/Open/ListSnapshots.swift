import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization

extension QCOW2Driver {
    /// The most that is read of a snapshot table, in bytes.
    private static let maximumSnapshotTableBytes = 64 << 20

    /// What the snapshot table lists. A damaged table gives the records in front of the damage: reporting it is the check's task, and the
    /// rest of what an image says about itself must stay readable.
    func readSnapshots() async throws(BlockError) -> [SnapshotInfo] { try await decodedSnapshots().map(SnapshotInfo.init) }

    /// All records of the snapshot table.
    /// - Throws: `.corruptImage` when it does not hold them all.
    func readSnapshotTable() async throws(BlockError) -> [SnapshotRecord] {
        let records = try await decodedSnapshots()
        guard records.count == state.withLock({ $0.snapshotCount }) else {
            throw BlockError(.corruptImage, "The snapshot table of the image is damaged behind \(records.count) snapshots; check the image")
        }
        return records
    }

    private func decodedSnapshots() async throws(BlockError) -> [SnapshotRecord] {
        let (count, start) = state.withLock { ($0.snapshotCount, $0.snapshotTableOffset.rawValue) }
        let available = min(Self.maximumSnapshotTableBytes, file.length - start)
        guard count > 0, available > 0 else { return [] }
        // Records vary in size: read what is likely enough, and more if it was not.
        var byteCount = min(available, count * 256)
        while true {
            let buffer = IOBuffer(byteCount: byteCount)
            defer { withExtendedLifetime(buffer) {} }
            try await file.read(buffer.vector, at: GuestOffset(start))
            let records = buffer.withBytes { bytes in SnapshotRecord.decode(count, from: bytes) }
            guard records.count < count, byteCount < available else { return records }
            byteCount = min(available, byteCount * 2)
        }
    }
}

extension SnapshotRecord {
    /// The first `count` records of a table, or those in front of one that does not fit.
    fileprivate static func decode(_ count: Int, from bytes: RawSpan) -> [SnapshotRecord] {
        var records: [SnapshotRecord] = []
        var position = 0
        while records.count < count, let record = try? SnapshotRecord(decoding: bytes, at: position), record.extraData.count <= maximumExtraSize {
            records.append(record)
            position += record.encodedSize
        }
        return records
    }
}

extension SnapshotInfo {
    init(_ record: SnapshotRecord) {
        let nanoseconds = Int(clamping: record.clockNanoseconds)
        self.init(
            id: record.identifier, name: record.name, vmStateSize: Int(clamping: record.stateSize), dateSec: Int(record.dateSeconds),
            dateNsec: Int(record.dateNanoseconds), vmClockSec: nanoseconds / 1_000_000_000, vmClockNsec: nanoseconds % 1_000_000_000,
            icount: record.instructionCount.map { Int(clamping: $0) })
    }
}
