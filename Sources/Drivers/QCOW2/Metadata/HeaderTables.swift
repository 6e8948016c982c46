import BlockGraph
import IOCore
import StrataBase
import Synchronization

/// The part of the header that names the image's tables: from the virtual size to the snapshot table, bytes 24 to 71. They lie in one sector, so one
/// write changes all of them or none of them; that is what makes snapshots and resizing atomic. Source: docs/interop/qcow2, "Header".
struct HeaderTables: Hashable, Sendable {
    /// Bytes.
    var virtualSize: Int
    /// Entries.
    var l1Size: Int
    var l1Offset: HostOffset
    var refcountTableOffset: HostOffset
    var refcountTableClusters: Int
    var snapshotCount: Int
    var snapshotTableOffset: HostOffset

    /// What the header on disk says, if no write of it is under way.
    init(_ state: borrowing ImageState) {
        virtualSize = state.virtualSize
        l1Size = state.l1.count
        l1Offset = state.l1Offset
        refcountTableOffset = state.refcounts.tableOffset
        refcountTableClusters = state.refcounts.tableClusters
        snapshotCount = state.snapshotCount
        snapshotTableOffset = state.snapshotTableOffset
    }

    func encoded(encryptionMethod: UInt32) -> [UInt8] {
        let start = QCOW2Header.Field.virtualSize
        var bytes = [UInt8](repeating: 0, count: QCOW2Header.Field.tablesEnd - start)
        bytes.setBigEndian(UInt64(virtualSize), at: 0)
        bytes.setBigEndian(encryptionMethod, at: QCOW2Header.Field.l1Size - 4 - start)
        bytes.setBigEndian(UInt32(truncatingIfNeeded: l1Size), at: QCOW2Header.Field.l1Size - start)
        bytes.setBigEndian(UInt64(l1Offset.rawValue), at: QCOW2Header.Field.l1TableOffset - start)
        bytes.setBigEndian(UInt64(refcountTableOffset.rawValue), at: QCOW2Header.Field.refcountTableOffset - start)
        bytes.setBigEndian(UInt32(truncatingIfNeeded: refcountTableClusters), at: QCOW2Header.Field.refcountTableClusters - start)
        bytes.setBigEndian(UInt32(truncatingIfNeeded: snapshotCount), at: QCOW2Header.Field.snapshotCount - start)
        bytes.setBigEndian(UInt64(snapshotTableOffset.rawValue), at: QCOW2Header.Field.snapshotTableOffset - start)
        return bytes
    }
}

extension QCOW2Driver {
    /// Lets the header name other tables, on stable storage. Everything they say must be there already.
    ///
    /// A write or a flush that fails may have reached the disk all the same. Then the old tables are put back at once, before anybody changes them; if
    /// that fails too, nothing more is written until it has succeeded (`restoreHeader`).
    /// - Throws: what failed; the header names what it named, or is in doubt.
    func switchHeader(from old: HeaderTables, to new: HeaderTables) async throws(BlockError) {
        await headerWrites.lock()
        defer { headerWrites.unlock() }
        do throws(BlockError) { try await write(new) } catch {
            do throws(BlockError) { try await write(old) } catch { state.withLock { $0.headerInDoubt = old } }
            throw error.during("updating the qcow2 header")
        }
    }

    /// Makes sure that the header names the tables in use.
    func restoreHeader() async throws(BlockError) {
        guard state.withLock({ $0.headerInDoubt != nil }) else { return }
        await headerWrites.lock()
        defer { headerWrites.unlock() }
        guard let old = state.withLock({ $0.headerInDoubt }) else { return }
        do throws(BlockError) { try await write(old) } catch { throw error.during("updating the qcow2 header") }
        state.withLock { $0.headerInDoubt = nil }
    }

    private func write(_ tables: HeaderTables) async throws(BlockError) {
        let buffer = IOBuffer(copying: tables.encoded(encryptionMethod: opened.header.encryptionMethod))
        defer { withExtendedLifetime(buffer) {} }
        try await file.write(buffer.vector, at: GuestOffset(QCOW2Header.Field.virtualSize))
        try await file.flush()
    }
}
