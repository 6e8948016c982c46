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
        guard preallocation == .off else {
            throw BlockError(.unsupported, "Preallocation mode '\(preallocation.rawValue)' is not supported when a qcow2 image is resized")
        }
        guard byteCount <= geometry.maximumVirtualSize else { throw BlockError(.tooLarge, "The new size is too large for the image's cluster size") }
        if opened.header.snapshotCount > 0, opened.header.version < 3 {
            throw BlockError(.unsupported, "Can't resize a version 2 image which has snapshots")
        }
        try await prepareForWriting()
        await resizing.lock()
        defer { resizing.unlock() }
        let old = length
        if byteCount == old { return }
        if byteCount < old { try await clear(from: byteCount, to: old) } else { try await extendL1(toCover: byteCount) }
        try await commit(.durable)
        try await writeHeaderBytes(at: QCOW2Header.Field.virtualSize, UInt64(byteCount))
        try await file.flush()
        state.withLock { state in
            state.virtualSize = byteCount
            state.l2.grow(toCapacity: options.l2Slots(forVirtualSize: byteCount, geometry))
        }
        setLength(byteCount)
        // What a longer backing file has beyond the old end has never been part of this disk.
        let hidden = GuestRange(GuestOffset(old), byteCount: bytesInBacking(at: GuestOffset(old), byteCount - old))
        if byteCount > old, !hidden.isEmpty, try await writeZeroes(hidden, flags: []) == .unsupported {
            try await writeZeroBuffer(hidden)
        }
    }

    private func writeZeroBuffer(_ range: GuestRange) async throws(BlockError) {
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
        guard opened.header.snapshotCount == 0 else { throw BlockError(.unsupported, "Can't shrink an image which has snapshots") }
        let boundary = min(newEnd.roundedUp(to: geometry.clusterSize), oldEnd)
        if newEnd < boundary {
            let rest = GuestOffset(newEnd)
            let extent = try await step { state throws(Obstacle) in try state.extent(at: rest, limit: boundary - newEnd) }
            if extent.kind == .normal || extent.kind == .compressed { try await writeZeroBuffer(GuestRange(rest, byteCount: boundary - newEnd)) }
        }
        try await unmap(from: GuestOffset(boundary.roundedUp(to: geometry.clusterSize)), to: GuestOffset(oldEnd.roundedUp(to: geometry.clusterSize)), .forget)
    }

    /// Moves the L1 table to a longer one when it is too short.
    private func extendL1(toCover byteCount: Int) async throws(BlockError) {
        let needed = geometry.l1Entries(forVirtualSize: byteCount)
        let present = state.withLock { $0.l1.count }
        if needed <= present { return }
        guard needed * 8 <= ClusterGeometry.maximumL1Bytes else { throw BlockError(.tooLarge, "The new size is too large for the image's L1 table") }
        let clusters = geometry.clusters(needed * 8)
        file.reached(.l1GrowAllocTable)
        let run = try await step { state throws(Obstacle) in try state.refcounts.allocateContiguous(clusters, &state.metadataClusters) }
        state.withLock { state in
            for cluster in 0..<clusters { state.metadataClusters.insert(run.start.rawValue >> geometry.clusterBits + cluster) }
        }
        await commits.lock()
        defer { commits.unlock() }
        // What the table on disk says, not what memory says: entries of new tables follow in the next commit, in their order.
        let entries = state.withLock { state in state.l1.indices.map { state.l1OnDisk[$0] ?? state.l1[$0] } }
        let buffer = IOBuffer(zeroed: clusters << geometry.clusterBits)
        buffer.withMutableBytes { bytes in
            for (index, entry) in entries.enumerated() { bytes.setBigEndian(entry, at: index * 8) }
        }
        do {
            file.reached(.l1GrowWriteTable)
            try await file.write(buffer.vector, at: run.start.asGuest)
            try await writeRefcounts()
            try await file.flush()
            file.reached(.l1GrowActivateTable)
            try await writeHeaderBytes(at: QCOW2Header.Field.l1Size, UInt32(needed), UInt64(run.start.rawValue))
            try await file.flush()
        } catch { throw error.during("moving the L1 table to \(run.start)") }
        state.withLock { state in
            let old = state.l1Offset
            let oldClusters = geometry.clusters(state.l1.count * 8)
            state.l1 += [UInt64](repeating: 0, count: needed - state.l1.count)
            state.l1Offset = run.start
            for cluster in 0..<oldClusters { state.metadataClusters.remove(old.rawValue >> geometry.clusterBits + cluster) }
            if oldClusters > 0 { state.frees.add(old, clusters: oldClusters, clusterSize: geometry.clusterSize, isPunched: false) }
        }
    }
}
