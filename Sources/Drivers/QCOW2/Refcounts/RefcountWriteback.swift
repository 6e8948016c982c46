import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization

// Refcount blocks and table between memory and disk.

extension QCOW2Driver {
    /// Brings a refcount block into the cache.
    func loadRefcountBlock(_ index: Int) async throws(BlockError) {
        await refcountLoads.lock()
        defer { refcountLoads.unlock() }
        let wanted: Result<HostOffset?, Obstacle> = state.withLock { state in
            if state.refcounts.cache.slot(of: index) != nil { return .success(nil) }
            do throws(Obstacle) { return .success(try state.refcounts.blockOffset(index)) } catch { return .failure(error) }
        }
        let offset: HostOffset
        switch wanted {
        case .success(nil): return
        case .success(let found?): offset = found
        case .failure(.corrupt(let contradiction)): throw await signalCorruption(contradiction)
        case .failure: return
        }
        Trace.qcow2RefcountBlockRead(file: file.node.name, block: index, host: offset.rawValue)
        let buffer = IOBuffer(byteCount: geometry.clusterSize)
        file.reached(.refblockLoad)
        do { try await file.read(buffer.vector, at: offset.asGuest) } catch { throw error.during("reading the refcount block at \(offset)") }
        let block = RefcountBlock(bytes: buffer.copyToArray(), order: geometry.refcountOrder)
        while true {
            let inserted = state.withLock { state in
                // While the block was read it may have been made anew only if it was missing, which it was not.
                state.refcounts.cache.insert(block, at: index, isDirty: false) != nil
            }
            if inserted { return }
            try await writeRefcountBlocks()
        }
    }

    /// Writes the dirty refcount blocks. Allowed at any time (see `RefcountCache`).
    func writeRefcountBlocks() async throws(BlockError) {
        // One writer at a time: an older copy of a block must not overtake a newer one.
        await refcountWrites.lock()
        defer { refcountWrites.unlock() }
        let slots = state.withLock { $0.refcounts.cache.dirtySlots() }
        for slot in slots {
            let snapshot = state.withLock { state -> (block: RefcountCache.Snapshot, offset: HostOffset)? in
                guard let block = state.refcounts.cache.snapshot(slot), let offset = try? state.refcounts.blockOffset(block.blockIndex) else { return nil }
                return (block, offset)
            }
            guard let snapshot else { continue }
            Trace.qcow2RefcountBlockWrite(file: file.node.name, block: snapshot.block.blockIndex, host: snapshot.offset.rawValue)
            let buffer = IOBuffer(copying: snapshot.block.bytes)
            file.reached(.refblockUpdate)
            do { try await file.write(buffer.vector, at: snapshot.offset.asGuest) } catch {
                throw error.during("writing the refcount block at \(snapshot.offset)")
            }
            state.withLock { state in
                state.refcounts.cache.written(snapshot.block)
                state.barrierWanted += 1
            }
        }
    }

    /// Brings blocks and table to the file, in that order. Under `commits`.
    func writeRefcounts() async throws(BlockError) {
        // The table is looked at first: every block it names by then is written below.
        var cut = tableCut()
        if cut.needsLongerTable {
            try await finishRefcountTableGrowth()
            cut = tableCut()
        }
        try await writeRefcountBlocks()
        if let move = cut.move { return try await writeMovedTable(move) }
        guard !cut.entries.isEmpty else { return }
        try await file.flush()
        file.reached(.reftableUpdate)
        for (index, bits) in cut.entries {
            Trace.qcow2RefcountTableWrite(file: file.node.name, index: index, entry: bits)
            let buffer = IOBuffer(byteCount: 8)
            buffer.withMutableBytes { $0.setBigEndian(bits, at: 0) }
            do { try await file.write(buffer.vector, at: (cut.offset + index * 8).asGuest) } catch { throw error.during("writing the refcount table") }
            state.withLock { state in
                state.refcounts.tableOnDisk[index] = state.refcounts.table[index] == bits ? nil : bits
            }
        }
    }

    private struct TableMove: Sendable {
        var offset: HostOffset
        var clusters: Int
        var entries: [UInt64]
    }

    private struct TableCut: Sendable {
        var entries: [(index: Int, bits: UInt64)]
        var offset: HostOffset
        var move: TableMove?
        var needsLongerTable: Bool
    }

    private func tableCut() -> TableCut {
        state.withLock { state in
            if let place = state.refcounts.movingTo { state.refcounts.moveTried = place.offset }
            let refcounts = state.refcounts
            let dirty = refcounts.tableOnDisk.keys.sorted()
            return TableCut(
                entries: dirty.map { ($0, refcounts.table[$0]) }, offset: refcounts.tableOffset,
                move: refcounts.movingTo.map { TableMove(offset: $0.offset, clusters: $0.clusters, entries: refcounts.table) },
                needsLongerTable: refcounts.movingTo == nil && (dirty.last ?? 0) >= refcounts.tableCapacityOnDisk)
        }
    }

    /// Writes the longer table to its place and then lets the header name it.
    private func writeMovedTable(_ move: TableMove) async throws(BlockError) {
        let buffer = IOBuffer(zeroed: move.clusters << geometry.clusterBits)
        buffer.withMutableBytes { bytes in
            for (index, entry) in move.entries.enumerated() { bytes.setBigEndian(entry, at: index * 8) }
        }
        do {
            file.reached(.refblockAllocWriteTable)
            try await file.write(buffer.vector, at: move.offset.asGuest)
            try await file.flush()
            file.reached(.refblockAllocSwitchTable)
            try await writeHeaderBytes(
                at: QCOW2Header.Field.refcountTableOffset, UInt64(move.offset.rawValue), UInt32(truncatingIfNeeded: move.clusters))
            try await file.flush()
        } catch { throw error.during("moving the refcount table to \(move.offset)") }
        state.withLock { state in
            let old = (offset: state.refcounts.tableOffset, clusters: state.refcounts.tableClusters)
            state.refcounts.tableOffset = move.offset
            state.refcounts.tableClusters = move.clusters
            // While it was written the table may have become longer still: then it moves on in the next commit.
            if state.refcounts.movingTo?.offset == move.offset { state.refcounts.movingTo = nil }
            state.refcounts.moveTried = nil
            for (index, bits) in move.entries.enumerated() where state.refcounts.tableOnDisk[index] != nil {
                state.refcounts.tableOnDisk[index] = state.refcounts.table[index] == bits ? nil : bits
            }
            // The header has left it behind already, and nobody reads it: only a commit makes it free.
            for cluster in 0..<old.clusters { state.metadataClusters.remove(old.offset.rawValue >> geometry.clusterBits + cluster) }
            state.frees.add(old.offset, clusters: old.clusters, clusterSize: geometry.clusterSize, isPunched: false)
        }
    }

    // MARK: Growth

    /// Makes the table long enough for a block index. In memory at once; on disk it moves in the next commit.
    func growRefcountTable(toHoldBlock blockIndex: Int) async throws(BlockError) {
        await refcountTableGrowth.lock()
        defer { refcountTableGrowth.unlock() }
        // Host offsets have 56 bits: no table makes room behind that.
        guard blockIndex < 1 << (56 - geometry.clusterBits - geometry.refcountBlockBits) else {
            throw BlockError(.tooLarge, "The image file cannot grow any further")
        }
        let isLongEnough = state.withLock { blockIndex < $0.refcounts.table.count }
        if isLongEnough, state.withLock({ $0.refcounts.movingTo != nil || blockIndex < $0.refcounts.tableCapacityOnDisk }) { return }
        try await placeLongerTable(forBlock: blockIndex)
    }

    /// Finds room for a table that became longer in memory but has no place yet: an earlier try failed.
    private func finishRefcountTableGrowth() async throws(BlockError) {
        await refcountTableGrowth.lock()
        defer { refcountTableGrowth.unlock() }
        let last = state.withLock { state in state.refcounts.movingTo == nil ? state.refcounts.tableOnDisk.keys.max() : nil }
        if let last { try await placeLongerTable(forBlock: last) }
    }

    private func placeLongerTable(forBlock blockIndex: Int) async throws(BlockError) {
        let entriesPerCluster = geometry.clusterSize / 8
        // Half as long again, and room for the blocks that count the table itself.
        let present = state.withLock { $0.refcounts.tableClusters }
        let clusters = max(present + max(present / 2, 1), blockIndex / entriesPerCluster + 2)
        guard clusters << geometry.clusterBits <= ClusterGeometry.maximumRefcountTableBytes else {
            throw BlockError(.tooLarge, "The refcount table of the image cannot grow beyond \(ClusterGeometry.maximumRefcountTableBytes) bytes")
        }
        state.withLock { state in
            let missing = clusters * entriesPerCluster - state.refcounts.table.count
            if missing > 0 { state.refcounts.table += [UInt64](repeating: 0, count: missing) }
        }
        file.reached(.reftableGrow)
        let run = try await step { state throws(Obstacle) in try state.refcounts.allocateContiguous(clusters, &state.metadataClusters) }
        state.withLock { state in
            for cluster in 0..<clusters { state.metadataClusters.insert(run.start.rawValue >> geometry.clusterBits + cluster, .refcountTable) }
            // A place that was found before and never used is given back; one that the header may name already is not.
            if let unused = state.refcounts.movingTo, unused.offset != state.refcounts.moveTried {
                for cluster in 0..<unused.clusters { state.metadataClusters.remove(unused.offset.rawValue >> geometry.clusterBits + cluster) }
                state.frees.add(unused.offset, clusters: unused.clusters, clusterSize: geometry.clusterSize, isPunched: false)
            }
            state.refcounts.movingTo = (run.start, clusters)
        }
    }
}
