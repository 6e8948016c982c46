import BlockGraph
import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

extension QCOW2Driver: Resizing {
    /// Changes the virtual size. A larger disk reads as zeroes in its new part, whatever a longer backing file has there.
    package func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        guard byteCount >= 0, byteCount.isAligned(to: 512) else {
            throw BlockError(.invalidArgument, "The new size must be a multiple of 512")
        }
        guard byteCount <= geometry.maximumVirtualSize else { throw BlockError(.tooLarge, "The new size is too large for the image's cluster size") }
        if opened.header.version < 3, state.withLock({ $0.snapshotCount > 0 }) {
            throw BlockError(.unsupported, "Can't resize a v2 image which has snapshots")
        }
        // Nobody knows what it would have to say about the new part.
        for bitmap in bitmaps.named where bitmap.isPersistent && !bitmap.isRetired { try bitmap.check(.inconsistent) }
        try await prepareForWriting()
        await resizing.lock()
        defer { resizing.unlock() }
        let old = length
        if byteCount == old { return }
        if byteCount < old {
            guard preallocation == .off else { throw BlockError(.invalidArgument, "Preallocation can't be used for shrinking an image") }
            try await clear(from: byteCount, to: old)
        } else {
            try await forgetVMState()
            try await extendL1(toCover: byteCount)
            try await makeRoom(from: old, to: byteCount, preallocation, exact: exact)
            try await hideBacking(from: old, to: byteCount)
        }
        try await commit(.durable)
        try await switchVirtualSize(to: byteCount)
        state.withLock { state in
            state.virtualSize = byteCount
            state.l2.grow(toCapacity: options.l2Slots(forVirtualSize: byteCount, geometry))
        }
        setLength(byteCount)
        if byteCount < old, geometry.hasExternalData, exact || isRawData { try await dataFile.resize(to: byteCount) }
    }

    /// Before a disk grows: what a longer backing file has behind the old end has never been part of the disk, and must not be for a moment.
    private func hideBacking(from start: Int, to end: Int) async throws(BlockError) {
        let hidden = GuestRange(GuestOffset(start), byteCount: bytesInBacking(at: GuestOffset(start), end - start))
        if hidden.isEmpty { return }
        do throws(BlockError) {
            if try await writeZeroes(hidden, flags: []) == .unsupported { try await writeZeroBuffer(hidden) }
        } catch {
            await forget(from: start, to: end)
            throw error
        }
    }

    /// After a disk could not grow: it keeps its size, and nothing stays mapped behind its end.
    func forget(from start: Int, to end: Int) async {
        do throws(BlockError) {
            try await unmap(from: GuestOffset(start.roundedUp(to: geometry.clusterSize)), to: GuestOffset(end.roundedUp(to: geometry.clusterSize)), .abandon)
        } catch {
            // What stays mapped there is seen by nobody.
        }
    }

    private func switchVirtualSize(to byteCount: Int) async throws(BlockError) {
        await commits.lock()
        defer { commits.unlock() }
        // A refcount table that waits to be moved is in its place before the header is written for something else.
        try await writeRefcounts()
        let old = state.withLock { HeaderTables($0) }
        var new = old
        new.virtualSize = byteCount
        try await switchHeader(from: old, to: new)
    }

    func writeZeroBuffer(_ range: GuestRange) async throws(BlockError) {
        let buffer = IOBuffer(zeroed: min(range.byteCount, 1 << 20))
        var position = range.start
        while position < range.end {
            let count = min(buffer.byteCount, range.end - position)
            try await write(buffer.vector(at: 0, byteCount: count), at: position, flags: [])
            position += count
        }
    }

    /// Before a disk shrinks: frees the clusters that go, and clears the rest of the last one, which would come back if the disk grew again.
    private func clear(from newEnd: Int, to oldEnd: Int) async throws(BlockError) {
        let boundary = min(newEnd.roundedUp(to: geometry.clusterSize), oldEnd)
        if newEnd < boundary {
            var position = newEnd
            while position < boundary {
                let rest = GuestOffset(position)
                let left = boundary - position
                let extent = try await step { state throws(Obstacle) in try state.extent(at: rest, limit: left) }
                if extent.kind == .normal || extent.kind == .compressed { try await writeZeroBuffer(GuestRange(rest, byteCount: extent.byteCount)) }
                position += extent.byteCount
            }
        }
        try await unmap(from: GuestOffset(boundary.roundedUp(to: geometry.clusterSize)), to: GuestOffset(oldEnd.roundedUp(to: geometry.clusterSize)), .forget)
    }

    /// Moves the L1 table to a longer one when it is too short.
    func extendL1(toCover byteCount: Int) async throws(BlockError) {
        let needed = geometry.l1Entries(forVirtualSize: byteCount)
        let present = state.withLock { $0.l1.count }
        if needed <= present { return }
        guard needed * 8 <= ClusterGeometry.maximumL1Bytes else { throw BlockError(.tooLarge, "The new size is too large for the image's L1 table") }
        let clusters = geometry.clusters(needed * 8)
        file.reached(.l1GrowAllocTable)
        let run = try await step { state throws(Obstacle) in try state.refcounts.allocateContiguous(clusters, &state.metadataClusters) }
        await commits.lock()
        defer { commits.unlock() }
        // What the table on disk says, not what memory says: entries of new tables follow in the next commit, in their order.
        let entries = state.withLock { state in state.l1.indices.map { state.l1OnDisk[$0] ?? state.l1[$0] } }
        do {
            file.reached(.l1GrowWriteTable)
            try await writeTable(entries, at: run)
            try await writeRefcounts()
            try await file.flush()
            file.reached(.l1GrowActivateTable)
            let old = state.withLock { HeaderTables($0) }
            var new = old
            new.l1Size = needed
            new.l1Offset = run.start
            try await switchHeader(from: old, to: new)
        } catch {
            // While nobody knows whether the header names the new place, it stays taken.
            if state.withLock({ $0.headerInDoubt == nil }) { giveBack(run) }
            throw error.during("moving the L1 table to \(run.start)")
        }
        state.withLock { state in
            let old = state.l1Offset
            let oldClusters = geometry.clusters(state.l1.count * 8)
            state.l1 += [UInt64](repeating: 0, count: needed - state.l1.count)
            state.l1Offset = run.start
            for cluster in 0..<clusters { state.metadataClusters.insert(run.start.rawValue >> geometry.clusterBits + cluster, .activeL1) }
            for cluster in 0..<oldClusters { state.metadataClusters.remove(old.rawValue >> geometry.clusterBits + cluster) }
            if oldClusters > 0 { state.frees.add(old, clusters: oldClusters, clusterSize: geometry.clusterSize, isPunched: false) }
        }
    }

    /// Writes a table of 64-bit numbers over whole clusters; what is left of them becomes zero.
    func writeTable(_ words: [UInt64], at run: ClusterRun) async throws(BlockError) {
        let buffer = IOBuffer(zeroed: run.clusterCount << geometry.clusterBits)
        defer { withExtendedLifetime(buffer) {} }
        buffer.withMutableBytes { bytes in
            for (index, word) in words.enumerated() { bytes.setBigEndian(word, at: index * 8) }
        }
        try await file.write(buffer.vector, at: run.start.asGuest)
    }

    /// Frees clusters that were taken and that nothing on disk has ever named.
    func giveBack(_ run: ClusterRun) {
        state.withLock { state in
            for number in 0..<run.clusterCount {
                let cluster = run.start.rawValue >> geometry.clusterBits + number
                do { _ = try state.refcounts.lower(cluster) } catch {
                    // The refcount block has left the cache: take the slow way to free it.
                    state.frees.add(run.start + number << geometry.clusterBits, clusters: 1, clusterSize: geometry.clusterSize, isPunched: false)
                }
            }
        }
    }
}
