import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization

extension QCOW2Driver {
    /// What must be done once before an image is written for the first time. Opening writes nothing, because permissions come later.
    ///
    /// - Autoclear bits that this driver does not maintain are cleared: what they vouch for is about to become wrong.
    /// - The refcount table is read, and the host clusters of every table are noted, so that guest data never overwrites them.
    func prepareForWriting() async throws(BlockError) {
        let (isReady, isCorrupt) = state.withLock { ($0.isReadyForWrites, $0.isCorrupt) }
        if isCorrupt { throw BlockError(.corruptImage, "the image was found to be corrupt; it takes no more writes") }
        if isReady { return }
        await preparation.lock()
        defer { preparation.unlock() }
        if state.withLock({ $0.isReadyForWrites }) { return }
        guard opened.header.incompatible.isDisjoint(with: [.dirty, .corrupt]) else {
            throw BlockError(.accessDenied, "qcow2: a damaged image cannot be written to before it is repaired")
        }

        for (name, offset) in [("L1", opened.header.l1TableOffset), ("refcount", opened.header.refcountTableOffset)]
        where offset > UInt64(file.length) {
            throw BlockError(.corruptImage, "The \(name) table of the image lies at 0x\(String(offset, radix: 16)), beyond the end of the file")
        }
        let table = try await readRefcountTable()
        let metadata = try noteMetadata(table)
        if !opened.header.autoclear.isEmpty {
            try await writeHeaderBytes(at: QCOW2Header.Field.autoclear, UInt64(0))
            try await file.flush()
        }
        let fileLength = file.length
        state.withLock { state in
            state.refcounts.table = table
            state.refcounts.fileLength = fileLength.roundedDown(to: geometry.clusterSize)
            state.refcounts.virginFrom = geometry.clusters(fileLength)
            state.metadataClusters = metadata
            state.isReadyForWrites = true
        }
    }

    func readRefcountTable() async throws(BlockError) -> [UInt64] {
        let byteCount = Int(opened.header.refcountTableClusters) << geometry.clusterBits
        let buffer = IOBuffer(byteCount: byteCount)
        file.reached(.reftableLoad)
        do { try await file.read(buffer.vector, at: GuestOffset(Int(opened.header.refcountTableOffset))) } catch {
            throw error.during("Could not read the refcount table")
        }
        return buffer.bigEndianWords(byteCount / 8)
    }

    /// - Throws: `.corruptImage` when two tables lie in one cluster: writing one would destroy the other.
    private func noteMetadata(_ refcountTable: [UInt64]) throws(BlockError) -> IntTable {
        let l1 = state.withLock { $0.l1 }
        var clusters = IntTable(capacity: 64 + l1.count / 2)
        func note(_ offset: UInt64, _ byteCount: Int) throws(BlockError) {
            guard offset <= UInt64(Int.max) else { return }
            let first = Int(offset) >> geometry.clusterBits
            for cluster in 0..<geometry.clusters(byteCount) {
                if clusters.contains(first + cluster) {
                    throw BlockError(.corruptImage, Contradiction.overlapsMetadata(HostOffset(Int(offset))).message)
                }
                clusters.insert(first + cluster)
            }
        }
        try note(0, 1)
        try note(opened.header.l1TableOffset, Int(opened.header.l1Size) * 8)
        try note(opened.header.refcountTableOffset, Int(opened.header.refcountTableClusters) << geometry.clusterBits)
        if opened.header.snapshotCount > 0 { try note(opened.header.snapshotTableOffset, Int(opened.header.snapshotCount) * 40) }
        for entry in refcountTable where entry & RefcountState.offsetMask != 0 { try note(entry & RefcountState.offsetMask, 1) }
        for entry in l1 where L1Entry(bits: entry).tableOffset != 0 { try note(UInt64(L1Entry(bits: entry).tableOffset), 1) }
        return clusters
    }
}
