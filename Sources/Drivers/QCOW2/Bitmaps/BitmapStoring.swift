import BlockGraph
import IOCore
import StrataBase
import Synchronization

// Writing bitmaps back. The order:
//
// 1. before the first write to the image all bitmaps on disk are marked as in use (`markBitmapsInUse`);
// 2. to store them, bits and tables are written to new clusters, then their refcounts; a flush;
// 3. the directory is written with all entries in use: over the old one if the same bitmaps are in it, else in a new place that the header names next;
// 4. a flush, and only then the same entries again without the mark: single numbers within a sector, so that each entry is either in use or not;
// 5. old clusters become free.

extension QCOW2Driver {
    /// Autoclear bits that stand for something which this driver keeps up to date.
    var maintainedAutoclear: AutoclearFeatures {
        let raw = opened.header.autoclear.intersection(opened.header.incompatible.contains(.externalDataFile) ? .rawExternalData : [])
        return bitmapStore.content.withLock { $0.isInForce } ? raw.union(.bitmaps) : raw
    }

    /// Says on disk that the bitmaps lack what is going to be written. Under `preparation`.
    func markBitmapsInUse() async throws(BlockError) {
        await bitmapStore.lock.lock()
        defer { bitmapStore.lock.unlock() }
        let content = bitmapStore.content.withLock { $0 }
        if content.directory.contains(where: { !$0.flags.contains(.inUse) }) || (content.isInDoubt && !content.directory.isEmpty) {
            try await writeDirectory(content.directory.encodedDirectory(inUse: true), at: content.directoryOffset)
            bitmapStore.content.withLock { content in
                for index in content.directory.indices { content.directory[index].flags.insert(.inUse) }
            }
        }
    }

    /// The same for those that cannot be loaded, and their tables are given up: when the file grows, what these name may come to lie in it, would pass for
    /// the bitmap's, and become free with it although it is guest data. Before anything is written to the image.
    func markDamagedBitmaps() async throws(BlockError) {
        await bitmapStore.lock.lock()
        defer { bitmapStore.lock.unlock() }
        let content = bitmapStore.content.withLock { $0 }
        var directory = content.directory
        for index in directory.indices where directory[index].isDamaged {
            directory[index].flags.insert(.inUse)
            directory[index].tableOffset = StoredBitmap.nowhere
        }
        if directory == content.directory { return }
        try await writeDirectory(directory.encodedDirectory(), at: content.directoryOffset)
        let marked = directory
        bitmapStore.content.withLock { $0.directory = marked }
    }

    /// Brings the bitmaps of the node into the image, and takes away those that have been removed. Nobody may write to the node.
    func storeBitmaps() async throws(BlockError) {
        if !hasBitmapsToStore { return }
        try await prepareForWriting()
        await bitmapStore.lock.lock()
        defer { bitmapStore.lock.unlock() }
        let old = bitmapStore.content.withLock { $0 }
        var next = BitmapStore.Content()
        next.isInForce = old.isInForce
        next.isLoaded = true
        var taken: [HostRun] = []
        do throws(BlockError) {
            let inconsistent = bitmapStore.inconsistentNames
            let wanted = bitmapStore.wanted
            let names = Set(wanted.compactMap(\.name))
            let stored = old.entriesByName
            let order = old.directory.map(\.name).filter { names.contains($0) || inconsistent.contains($0) }
            let byName = Dictionary(uniqueKeysWithValues: wanted.map { ($0.name ?? "", $0) })
            for name in order + wanted.compactMap(\.name).filter({ stored[$0] == nil }) {
                let present = stored[name]
                guard let bitmap = byName[name] else {
                    if let present { next.directory.append(present) }
                    continue
                }
                let bits = bitmap.everythingDirty
                var entry: StoredBitmap
                if let present, old.saved[name] == bits { entry = present } else { entry = try await write(bits, named: name, &taken) }
                // Seen as unusable until everything is on disk.
                entry.flags = entry.flags.intersection(.extraDataCompatible).union(bitmap.isRecording ? [.inUse, .auto] : .inUse)
                next.directory.append(entry)
                next.saved[name] = bits
            }
            try await install(&next, over: old, &taken)
        } catch {
            giveBack(taken)
            throw error.during("Storing the bitmaps of node '\(file.node.name)'")
        }
        // From here on the next write marks them again first.
        state.withLock { $0.mustMarkBitmaps = true }
        let inconsistent = bitmapStore.inconsistentNames
        // QEMU opens no image in which a bitmap of a disk without bytes is not in use: no length of its table would be right.
        if length > 0 {
            for index in next.directory.indices where !inconsistent.contains(next.directory[index].name) { next.directory[index].flags.remove(.inUse) }
        }
        let directory = next.directory
        bitmapStore.content.withLock { $0.directory = directory }
        if directory.isEmpty { return }
        do throws(BlockError) { try await writeDirectory(directory.encodedDirectory(), at: next.directoryOffset) } catch {
            bitmapStore.content.withLock { $0.isInDoubt = true }
            throw error
        }
    }

    /// Whether what is on disk differs from what is in memory, or is marked as in use.
    private var hasBitmapsToStore: Bool {
        let content = bitmapStore.content.withLock { $0 }
        let wanted = bitmapStore.wanted
        let inconsistent = bitmapStore.inconsistentNames
        if content.isInDoubt { return true }
        guard content.directory.count == wanted.count + inconsistent.count else { return true }
        let stored = content.entriesByName
        return wanted.contains { bitmap in
            guard let name = bitmap.name, let entry = stored[name] else { return true }
            return entry.flags.contains(.inUse) || entry.flags.contains(.auto) != bitmap.isRecording || content.saved[name] != bitmap.everythingDirty
        }
    }

    /// Removes one bitmap from the directory, which is otherwise left as it is.
    func dropStoredBitmap(named name: String) async throws(BlockError) {
        guard bitmapStore.content.withLock({ $0.directory.contains { $0.name == name } }) else { return }
        try await prepareForWriting()
        await bitmapStore.lock.lock()
        defer { bitmapStore.lock.unlock() }
        let old = bitmapStore.content.withLock { $0 }
        var next = old
        next.directory.removeAll { $0.name == name }
        next.saved[name] = nil
        var taken: [HostRun] = []
        do throws(BlockError) { try await install(&next, over: old, &taken) } catch {
            giveBack(taken)
            throw error.during("Removing bitmap '\(name)'")
        }
    }

    /// Makes a directory, whose tables are written, the image's. All that are not in use in `old` are not in use either afterwards.
    private func install(_ next: inout BitmapStore.Content, over old: BitmapStore.Content, _ taken: inout [HostRun]) async throws(BlockError) {
        let bytes = next.directory.encodedDirectory()
        let isInPlace = old.isInForce && !old.isInDoubt && !next.directory.isEmpty && next.directory.map(\.layout) == old.directory.map(\.layout)
        if isInPlace {
            next.directoryOffset = old.directoryOffset
        } else if !next.directory.isEmpty {
            next.directoryOffset = try await allocate(bytes.count, &taken)
        }
        try await settleRefcounts()
        try await file.flush()
        // What was taken may be in use from here on: a write that fails may have been done.
        taken = []
        do throws(BlockError) {
            if !next.directory.isEmpty { try await writeDirectory(bytes, at: next.directoryOffset) }
            if !isInPlace {
                try await writeBitmapsExtension(
                    next.directory.isEmpty
                        ? nil : BitmapsExtension(count: next.directory.count, directorySize: bytes.count, directoryOffset: next.directoryOffset))
            }
        } catch {
            bitmapStore.content.withLock { $0.isInDoubt = true }
            throw error
        }
        next.isInForce = bitmapStore.content.withLock { $0.isInForce }
        next.isInDoubt = false
        let content = next
        bitmapStore.content.withLock { $0 = content }
        let kept = Set(next.clusters(geometry))
        giveBack(old.clusters(geometry).filter { !kept.contains($0) })
    }

    // MARK: Clusters

    /// Writes bits and their table to new clusters.
    private func write(_ bits: HierarchicalBitmap, named name: String, _ taken: inout [HostRun]) async throws(BlockError) -> StoredBitmap {
        let wordsPerCluster = geometry.clusterSize / 8
        var table = [UInt64](
            repeating: 0,
            count: StoredBitmap.tableSize(bitCount: bits.byteCount.dividedRoundingUp(by: bits.granularity), clusterSize: geometry.clusterSize))
        var words = [UInt64](repeating: 0, count: wordsPerCluster)
        var position = GuestOffset(0)
        // From one dirty part to the next: clusters of clear bits in between are not even looked at.
        while let dirty = bits.nextDirty(in: GuestRange(position, byteCount: bits.byteCount - position.rawValue)) {
            let index = dirty.rawValue / bits.granularity / (8 * geometry.clusterSize)
            for word in words.indices {
                let number = index * wordsPerCluster + word
                words[word] = number < bits.wordCount ? bits.word(number) : 0
            }
            table[index] = words.allSatisfy { $0 == .max } ? StoredBitmap.allSet : UInt64(try await write(words.map(\.byteSwapped), &taken))
            let (next, overflow) = ((index + 1) * 8 * geometry.clusterSize).multipliedReportingOverflow(by: bits.granularity)
            if overflow || next >= bits.byteCount { break }
            position = GuestOffset(next)
        }
        return StoredBitmap(name: name, granularity: bits.granularity, flags: [], tableOffset: try await write(table, &taken), table: table)
    }

    /// Writes big-endian numbers to new clusters.
    /// - Returns: where they lie.
    private func write(_ words: [UInt64], _ taken: inout [HostRun]) async throws(BlockError) -> Int {
        let offset = try await allocate(words.count * 8, &taken)
        // Whole clusters, so that what lies there leaves no trace.
        let buffer = IOBuffer(zeroed: geometry.clusters(words.count * 8) << geometry.clusterBits)
        defer { withExtendedLifetime(buffer) {} }
        buffer.withMutableBytes { bytes in
            for (index, word) in words.enumerated() { bytes.setBigEndian(word, at: index * 8) }
        }
        try await file.write(buffer.vector, at: GuestOffset(offset))
        return offset
    }

    private func allocate(_ byteCount: Int, _ taken: inout [HostRun]) async throws(BlockError) -> Int {
        let clusters = geometry.clusters(byteCount)
        let run = try await step { state throws(Obstacle) in
            let run = try state.refcounts.allocateContiguous(clusters, &state.metadataClusters)
            for cluster in 0..<clusters { state.metadataClusters.insert(run.start.rawValue >> geometry.clusterBits + cluster) }
            return run
        }
        taken.append(HostRun(run.start.rawValue, byteCount: byteCount, geometry))
        return run.start.rawValue
    }

    /// Clusters that nothing on disk leads to any more, or yet.
    private func giveBack(_ runs: [HostRun]) {
        state.withLock { state in
            for run in runs {
                for cluster in run.first..<run.first + run.count { state.metadataClusters.remove(cluster) }
                state.frees.add(HostOffset(run.first << geometry.clusterBits), clusters: run.count, clusterSize: geometry.clusterSize, isPunched: false)
            }
        }
    }

    private func writeDirectory(_ bytes: [UInt8], at offset: Int) async throws(BlockError) {
        let buffer = IOBuffer(copying: bytes)
        defer { withExtendedLifetime(buffer) {} }
        do throws(BlockError) {
            try await file.write(buffer.vector, at: GuestOffset(offset))
            try await file.flush()
        } catch { throw error.during("writing the bitmap directory") }
    }
}
