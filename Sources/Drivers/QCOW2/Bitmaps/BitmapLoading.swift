import BlockGraph
import IOCore
import StrataBase
import Synchronization

extension QCOW2Driver {
    /// What all bitmaps of an image may take in memory together when they have nothing in common, in bytes: lists of chunks and tables. The bits
    /// themselves take what the image file has of them.
    private static let maximumBitmapMemory = 512 << 20

    /// Reads the directory of bitmaps.
    /// - Returns: no entries when there is no valid directory: none at all, or one that a writer did not keep up to date.
    /// - Throws: `.corruptImage` with what is wrong with it.
    static func readBitmapDirectory(of file: BlockChild, _ header: ValidatedHeader) async throws(BlockError) -> [StoredBitmap] {
        guard let place = header.bitmapsInForce else { return [] }
        guard place.count > 0 else { throw BlockError(.corruptImage, "bitmaps_ext: found bitmaps extension with zero bitmaps") }
        guard place.count <= UInt32(StoredBitmap.maximumCount) else {
            throw BlockError(.tooLarge, "bitmaps_ext: image has \(place.count) bitmaps, exceeding the maximum of \(StoredBitmap.maximumCount)")
        }
        guard place.directorySize <= UInt64(StoredBitmap.maximumDirectorySize) else {
            throw BlockError(
                .tooLarge, "bitmaps_ext: bitmap directory size (\(place.directorySize)) exceeds the maximum supported size (\(StoredBitmap.maximumDirectorySize))")
        }
        let (offset, size) = (place.directoryOffset, Int(place.directorySize))
        guard offset != 0, offset <= UInt64(max(0, file.length - size)), Int(offset).isAligned(to: header.geometry.clusterSize) else {
            throw BlockError(.corruptImage, "bitmaps_ext: invalid bitmap directory offset 0x\(String(offset, radix: 16))")
        }
        let buffer = IOBuffer(byteCount: size)
        do { try await file.read(buffer.vector, at: GuestOffset(Int(offset))) } catch { throw error.during("Could not read the bitmap directory") }
        do {
            return try buffer.withBytes { bytes throws(DecodingFailure) in
                try [StoredBitmap](decoding: bytes, count: Int(place.count), header.geometry)
            }
        } catch { throw BlockError(.corruptImage, "Invalid bitmap directory: \(error)") }
    }

    /// Takes the bitmaps of the image into memory, in place of those that are there from it.
    func loadBitmaps() async throws(BlockError) {
        var content = BitmapStore.Content()
        content.directory = try await Self.readBitmapDirectory(of: file, opened)
        content.directoryOffset = Int(opened.bitmapsInForce?.directoryOffset ?? 0)
        content.isInForce = opened.bitmapsInForce != nil
        content.isLoaded = true
        var loaded: [DirtyBitmap] = []
        var memory = 0
        for index in content.directory.indices {
            let entry = content.directory[index]
            memory += entry.tableSize * 8
            var isInconsistent = entry.flags.contains(.inUse)
            var bits: HierarchicalBitmap
            do throws(BlockError) {
                bits = try HierarchicalBitmap(byteCount: length, granularity: 1 << Int(entry.granularityBits))
                memory += bits.wordCount / 64
                guard memory <= Self.maximumBitmapMemory else { throw BlockError(.tooLarge, "the image's bitmaps are too large to be loaded") }
                let needed = StoredBitmap.tableSize(bitCount: length.dividedRoundingUp(by: bits.granularity), clusterSize: geometry.clusterSize)
                if let table = try await readBitmapTable(entry), isInconsistent || entry.tableSize == needed {
                    content.directory[index].table = table
                } else {
                    // The disk is worth more than the bitmap, which cannot be believed: it is there to be removed, and is marked so before the first write.
                    content.directory[index].isDamaged = true
                    isInconsistent = true
                }
                if !isInconsistent {
                    for (number, place) in content.directory[index].table.enumerated() where place != 0 {
                        try await readBits(place, fromGranule: number * geometry.clusterSize * 8, into: &bits)
                    }
                    content.saved[entry.name] = bits
                }
            } catch {
                throw error.during("Could not load bitmap '\(entry.name)'")
            }
            loaded.append(
                DirtyBitmap(
                    name: entry.name, bits: bits, isEnabled: entry.flags.contains(.auto) && !isInconsistent, isPersistent: true, isInconsistent: isInconsistent))
        }
        forgetStoredBitmaps()
        for bitmap in loaded { try bitmapStore.bitmaps.add(bitmap) }
        bitmapStore.content.withLock { $0 = content }
    }

    /// Lets go of the bitmaps in memory that the image has as well.
    func forgetStoredBitmaps() {
        bitmapStore.bitmaps.remove(where: { $0.name != nil && $0.isPersistent })
        bitmapStore.content.withLock { content in
            content = BitmapStore.Content()
            // Until they are loaded anew none are known, whatever the header said once.
            content.isLoaded = true
        }
    }

    /// - Returns: nil for a table that cannot be right: it does not lie in the file, or what it names does not.
    private func readBitmapTable(_ entry: StoredBitmap) async throws(BlockError) -> [UInt64]? {
        guard entry.tableOffset <= file.length - entry.tableSize * 8 else { return nil }
        let table = try await file.readWords(at: HostOffset(entry.tableOffset), entry.tableSize)
        let isSound = table.allSatisfy { place in
            place <= StoredBitmap.allSet
                || (place & ~StoredBitmap.offsetMask == 0 && Int(place).isAligned(to: geometry.clusterSize) && Int(place) <= file.length - geometry.clusterSize)
        }
        return isSound ? table : nil
    }

    private func readBits(_ place: UInt64, fromGranule first: Int, into bits: inout HierarchicalBitmap) async throws(BlockError) {
        if place == StoredBitmap.allSet {
            let (start, overflow) = first.multipliedReportingOverflow(by: bits.granularity)
            if overflow || start >= length { return }
            let (span, isLong) = (geometry.clusterSize * 8).multipliedReportingOverflow(by: bits.granularity)
            return bits.set(GuestRange(GuestOffset(start), byteCount: min(isLong ? .max : span, length - start)))
        }
        let buffer = IOBuffer(byteCount: geometry.clusterSize)
        try await file.read(buffer.vector, at: GuestOffset(Int(place)))
        let words = buffer.bigEndianWords(geometry.clusterSize / 8)
        for (index, word) in words.enumerated() where word != 0 && first / 64 + index < bits.wordCount {
            bits.mark(word.byteSwapped, at: first / 64 + index)
        }
    }
}

extension ValidatedHeader {
    /// Where the bitmap directory is, if it is valid: an image that was written to by a program without bitmaps has lost the autoclear bit.
    var bitmapsInForce: BitmapsExtension? {
        header.version >= 3 && header.autoclear.contains(.bitmaps) ? extensions.bitmaps : nil
    }
}
