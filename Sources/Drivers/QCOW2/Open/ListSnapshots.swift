import BlockGraph
import IOCore
import StorageSchema
import StrataBase

extension QCOW2Driver {
    /// The most that is read of a snapshot table, in bytes.
    private static let maximumSnapshotTableBytes = 16 << 20

    /// What the snapshot table lists. A damaged table gives the records in front of the damage: reporting it is the check's task, and the
    /// rest of what an image says about itself must stay readable.
    func readSnapshots() async throws(BlockError) -> [SnapshotInfo] {
        let count = Int(opened.header.snapshotCount), start = Int(clamping: opened.header.snapshotTableOffset)
        let available = min(Self.maximumSnapshotTableBytes, file.length - start)
        guard count > 0, available > 0 else { return [] }
        // Records vary in size: read what is likely enough, and more if it was not.
        var byteCount = min(available, count * 256)
        while true {
            let buffer = IOBuffer(byteCount: byteCount)
            try await file.read(buffer.vector, at: GuestOffset(start))
            let records = buffer.withBytes { bytes in SnapshotRecord.decode(count, from: bytes) }
            guard records.count < count, byteCount < available else { return records.map(SnapshotInfo.init) }
            byteCount = min(available, byteCount * 2)
        }
    }
}

extension SnapshotRecord {
    /// The first `count` records of a table, or those in front of one that does not fit.
    fileprivate static func decode(_ count: Int, from bytes: RawSpan) -> [SnapshotRecord] {
        var records: [SnapshotRecord] = []
        var position = 0
        while records.count < count, let record = try? SnapshotRecord(decoding: bytes, at: position) {
            records.append(record)
            position += record.encodedSize
        }
        return records
    }
}

extension SnapshotInfo {
    fileprivate init(_ record: SnapshotRecord) {
        let nanoseconds = Int(clamping: record.clockNanoseconds)
        self.init(
            id: record.identifier, name: record.name, vmStateSize: Int(clamping: record.stateSize), dateSec: Int(record.dateSeconds),
            dateNsec: Int(record.dateNanoseconds), vmClockSec: nanoseconds / 1_000_000_000, vmClockNsec: nanoseconds % 1_000_000_000,
            icount: record.instructionCount.map { Int(clamping: $0) })
    }
}
