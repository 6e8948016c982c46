import BlockGraph
import IOCore
import StrataBase
import Synchronization

// Refcounts of another width: a second table with its blocks is made beside the first, and one write of the header goes over to it. Until then the first
// counts the clusters of the second; afterwards the second counts those of the first until they are freed. A crash leaks one of the two.

extension QCOW2Driver {
    /// - Parameter order: the width is `1 << order` bits.
    /// - Throws: `.invalidArgument` when a cluster has more references than a count of that width can say.
    func changeRefcountWidth(toOrder order: Int, progress: @Sendable (_ done: Int, _ total: Int) -> Void) async throws(BlockError) {
        try await settleIfWritten()
        let new = ClusterGeometry(
            clusterBits: geometry.clusterBits, refcountOrder: order, hasSubclusters: geometry.hasSubclusters, hasExternalData: geometry.hasExternalData)
        _ = try await highestCluster(fitting: new)
        var taken: [ClusterRun] = []
        do throws(BlockError) {
            let (table, blocks) = try await takeRefcountClusters(new, &taken)
            let old = try await fill(table, blocks, new, progress)
            try await switchRefcounts(to: table, new)
            // The header names them now.
            taken = []
            try await reload()
            state.withLock { state in
                for run in old { state.frees.add(run.start, clusters: run.clusterCount, clusterSize: new.clusterSize, isPunched: false) }
            }
        } catch {
            for run in taken { giveBack(run) }
            throw error
        }
        try await settleIfWritten()
    }

    /// The highest cluster that is in use, by the refcounts on disk.
    private func highestCluster(fitting new: ClusterGeometry) async throws(BlockError) -> Int {
        var highest = 0
        for (index, offset) in try await refcountBlocksOnDisk() {
            let block = try await readRefcountBlock(offset)
            for position in 0..<block.count where block[position] != 0 {
                let cluster = index << geometry.refcountBlockBits + position
                guard block[position] <= new.maximumRefcount else {
                    throw BlockError(
                        .invalidArgument,
                        "Cannot decrease refcount entry width to \(new.refcountBits) bits: Cluster at offset 0x\(String(cluster << geometry.clusterBits, radix: 16)) has a refcount of \(block[position])")
                }
                highest = max(highest, cluster)
            }
        }
        return highest
    }

    private func refcountBlocksOnDisk() async throws(BlockError) -> [(index: Int, offset: HostOffset)] {
        var blocks: [(index: Int, offset: HostOffset)] = []
        for (index, bits) in try await readRefcountTable().enumerated() where bits & RefcountState.offsetMask != 0 {
            let offset = bits & RefcountState.offsetMask
            guard offset < UInt64(file.length), Int(offset).isAligned(to: geometry.clusterSize) else {
                throw await signalCorruption(.refcountTableEntry(index: index, value: bits))
            }
            blocks.append((index, HostOffset(Int(offset))))
        }
        return blocks
    }

    private func readRefcountBlock(_ offset: HostOffset) async throws(BlockError) -> RefcountBlock {
        let buffer = IOBuffer(byteCount: geometry.clusterSize)
        do { try await file.read(buffer.vector, at: offset.asGuest) } catch { throw error.during("reading the refcount block at \(offset)") }
        return RefcountBlock(bytes: buffer.copyToArray(), order: geometry.refcountOrder)
    }

    /// Takes clusters for the new table and its blocks, enough to count these clusters too. Afterwards the counts on disk are complete.
    private func takeRefcountClusters(_ new: ClusterGeometry, _ taken: inout [ClusterRun]) async throws(BlockError) -> (ClusterRun, [HostOffset]) {
        var table: ClusterRun?
        var blocks: [HostOffset] = []
        while true {
            try await commit(.durable)
            try await settleRefcounts()
            let needed = try await highestCluster(fitting: new) >> new.refcountBlockBits + 1
            let tableClusters = max(1, new.clusters(needed * 8))
            guard tableClusters << new.clusterBits <= ClusterGeometry.maximumRefcountTableBytes else {
                throw BlockError(.tooLarge, "The refcount table would be larger than \(ClusterGeometry.maximumRefcountTableBytes) bytes")
            }
            if let table, table.clusterCount >= tableClusters, blocks.count >= needed { return (table, blocks) }
            while blocks.count < needed {
                let run = try await take(1, &taken)
                blocks.append(run.start)
            }
            if (table?.clusterCount ?? 0) < tableClusters {
                if let table {
                    giveBack(table)
                    taken.removeAll { $0 == table }
                }
                table = try await take(tableClusters, &taken)
            }
        }
    }

    private func take(_ count: Int, _ taken: inout [ClusterRun]) async throws(BlockError) -> ClusterRun {
        let run = try await step { state throws(Obstacle) in try state.refcounts.allocateContiguous(count, &state.metadataClusters) }
        taken.append(run)
        return run
    }

    /// Writes the new blocks and table.
    /// - Returns: the clusters of the old ones.
    private func fill(
        _ table: ClusterRun, _ blocks: [HostOffset], _ new: ClusterGeometry, _ progress: @Sendable (_ done: Int, _ total: Int) -> Void
    ) async throws(BlockError) -> [ClusterRun] {
        let place = state.withLock { ($0.refcounts.tableOffset, $0.refcounts.tableClusters) }
        var old = [ClusterRun(start: place.0, clusterCount: place.1, isKnownZero: false)]
        var present: [Int: HostOffset] = [:]
        for (index, offset) in try await refcountBlocksOnDisk() {
            present[index] = offset
            old.append(ClusterRun(start: offset, clusterCount: 1, isKnownZero: false))
        }
        var source: (index: Int, block: RefcountBlock)?
        for (number, offset) in blocks.enumerated() {
            var block = RefcountBlock(emptyFor: new)
            for position in 0..<block.count {
                let cluster = number << new.refcountBlockBits + position
                let index = cluster >> geometry.refcountBlockBits
                guard let offset = present[index] else { continue }
                if source?.index != index { source = (index, try await readRefcountBlock(offset)) }
                if let count = source?.block[cluster & (geometry.refcountsPerBlock - 1)], count != 0 { block[position] = count }
            }
            let buffer = IOBuffer(copying: block.bytes)
            defer { withExtendedLifetime(buffer) {} }
            try await file.write(buffer.vector, at: offset.asGuest)
            progress(number + 1, blocks.count + 1)
        }
        let buffer = IOBuffer(zeroed: table.clusterCount << new.clusterBits)
        defer { withExtendedLifetime(buffer) {} }
        buffer.withMutableBytes { bytes in
            for (number, offset) in blocks.enumerated() { bytes.setBigEndian(UInt64(offset.rawValue), at: number * 8) }
        }
        try await file.write(buffer.vector, at: table.start.asGuest)
        try await file.flush()
        return old
    }

    /// Lets the header name the new table and the new width, in one sector.
    private func switchRefcounts(to table: ClusterRun, _ new: ClusterGeometry) async throws(BlockError) {
        await headerWrites.lock()
        defer { headerWrites.unlock() }
        let start = QCOW2Header.Field.refcountTableOffset
        let old = IOBuffer(byteCount: QCOW2Header.Field.refcountOrder + 4 - start)
        defer { withExtendedLifetime(old) {} }
        try await file.read(old.vector, at: GuestOffset(start))
        var bytes = old.copyToArray()
        bytes.setBigEndian(UInt64(table.start.rawValue), at: 0)
        bytes.setBigEndian(UInt32(truncatingIfNeeded: table.clusterCount), at: 8)
        bytes.setBigEndian(UInt32(new.refcountOrder), at: QCOW2Header.Field.refcountOrder - start)
        let buffer = IOBuffer(copying: bytes)
        defer { withExtendedLifetime(buffer) {} }
        do throws(BlockError) {
            try await file.write(buffer.vector, at: GuestOffset(start))
            try await file.flush()
        } catch {
            // It may have reached the disk: the old one is put back, or nothing more is written.
            do throws(BlockError) {
                try await file.write(old.vector, at: GuestOffset(start))
                try await file.flush()
            } catch { state.withLock { $0.isCorrupt = true } }
            throw error.during("updating the qcow2 header")
        }
    }
}
