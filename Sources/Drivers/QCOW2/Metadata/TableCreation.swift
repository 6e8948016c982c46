import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization

extension QCOW2Driver {
    /// Gives an L1 entry an L2 table of its own: a new one, or a copy when the present one is shared with a snapshot.
    ///
    /// The table is on disk before the L1 entry changes even in memory; the L1 entry reaches the disk in the next commit, after a flush.
    func makeTable(atL1Index index: Int) async throws(BlockError) {
        await tables.lock()
        defer { tables.unlock() }
        let old = state.withLock { state in index < state.l1.count ? L1Entry(bits: state.l1[index]) : nil }
        guard let old else { throw BlockError(.invalidArgument, "guest offset beyond the L1 table") }
        if old.isCopied && old.tableOffset != 0 { return }
        guard old.tableOffset.isAligned(to: geometry.clusterSize) else {
            throw await signalCorruption(.l1Entry(index: index, bits: old.bits))
        }

        let run = try await step { state throws(Obstacle) in try state.refcounts.allocate(upTo: 1, &state.metadataClusters) }
        do {
            try await writeInitialTable(run, copying: old)
        } catch {
            state.withLock { state in
                do { _ = try state.refcounts.lower(run.start.rawValue >> geometry.clusterBits) } catch {
                    state.frees.add(run.start, clusters: 1, clusterSize: geometry.clusterSize, isPunched: false)
                }
            }
            throw error.during("writing a new L2 table at \(run.start)")
        }
        state.withLock { state in
            state.metadataClusters.insert(run.start.rawValue >> geometry.clusterBits, .activeL2)
            state.setL1(index, L1Entry(table: run.start, copied: true))
            state.barrierWanted += 1
            if old.tableOffset != 0 {
                // A table that was shared is a snapshot's now.
                let cluster = old.tableOffset >> geometry.clusterBits
                if state.overlapChecks.contains(.inactiveL2) { state.metadataClusters.insert(cluster, .inactiveL2) } else { state.metadataClusters.remove(cluster) }
                state.frees.add(HostOffset(old.tableOffset), clusters: 1, clusterSize: geometry.clusterSize, isPunched: false)
            }
        }
    }

    /// What file systems set apart at once. Bytes.
    private static let pageSize = 4096

    private func writeInitialTable(_ run: ClusterRun, copying old: L1Entry) async throws(BlockError) {
        if old.tableOffset != 0 {
            let copy = IOBuffer(byteCount: geometry.clusterSize)
            file.reached(.l2AllocCowRead)
            try await file.read(copy.vector, at: GuestOffset(old.tableOffset))
            file.reached(.l2AllocWrite)
            try await file.write(copy.vector, at: run.start.asGuest)
        } else if !run.isKnownZero || geometry.clusterSize >= Self.pageSize {
            // Also where the file reads as zeroes already: on a full disk a table without room could never be written, and everything that it maps were lost.
            file.reached(.l2AllocWrite)
            try await file.writeZeroes(GuestRange(run.start.asGuest, byteCount: geometry.clusterSize))
        }
    }
}
