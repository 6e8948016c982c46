package import BlockGraph
package import StorageSchema
package import StrataBase

/// A persistent bitmap that would be copied along, as far as its size in an image goes.
package struct MeasuredBitmap: Hashable, Sendable {
    /// Bytes of the disk for each bit; a power of two.
    package var granularity: Int
    package var nameByteCount: Int

    package init(granularity: Int, nameByteCount: Int) {
        self.granularity = granularity
        self.nameByteCount = nameByteCount
    }
}

extension QCOW2Driver {
    /// How much room an image made with these options would take.
    ///
    /// The numbers are those of `qemu-img measure`: tables for the whole disk, and whole clusters for what the source holds. Data in an external file is
    /// counted as if it were in the image.
    /// - Parameters:
    ///   - options: as for `create`; the size is the source's when there is one. The files named are not looked at.
    ///   - source: what would be copied: all of its chain. Nil for an empty disk.
    ///   - bitmaps: the source's persistent bitmaps; nil for a source that cannot have any.
    /// - Throws: for options that `create` would refuse, and when the source cannot say what it holds.
    package static func measure(
        _ options: BlockdevCreateOptionsQcow2, source: BlockBackend? = nil, bitmaps: [MeasuredBitmap]? = nil,
        progress: (_ done: Int, _ total: Int) -> Void = { _, _ in }
    ) async throws(BlockError) -> ImageMeasure {
        var options = options
        let wanted = source?.length ?? options.size
        guard wanted <= Int.max - 512 else { throw tooLarge }
        options.size = wanted.roundedUp(to: 512)
        let plan = try checked(options)
        let geometry = plan.geometry
        guard options.size <= Int.max - geometry.clusterSize else { throw tooLarge }
        let size = options.size.roundedUp(to: geometry.clusterSize)
        let tables = geometry.tableBytes(forDisk: size) + geometry.clusters(plan.keySlotBytes) << geometry.clusterBits
        var data = source == nil ? 0 : size
        // Over a backing file nobody knows what would be copied.
        if let source, options.backingFile == nil { data = try await allocatedBytes(of: source, clusterSize: geometry.clusterSize, progress) }
        if let mode = options.preallocation, mode == .full || mode == .falloc { data = size }
        return ImageMeasure(
            required: tables + data, fullyAllocated: tables + size,
            bitmaps: plan.header.version < 3 ? nil : bitmaps.map { geometry.bitmapBytes($0, forDisk: options.size) })
    }

    private static var tooLarge: BlockError { BlockError(.tooLarge, "The image size is too large (try using a larger cluster size)") }

    private static func checked(_ options: BlockdevCreateOptionsQcow2) throws(BlockError) -> CreationPlan {
        do { return try CreationPlan(options) } catch {
            if error.code == .tooLarge { throw tooLarge }
            // Only command lines ask for sizes.
            throw BlockError(error.code, error.message.replacing("version=v3 or greater", with: "compat=1.1 or greater"))
        }
    }

    /// Bytes in clusters of which some part is data.
    private static func allocatedBytes(of source: BlockBackend, clusterSize: Int, _ progress: (Int, Int) -> Void) async throws(BlockError) -> Int {
        var total = 0
        var position = 0
        let length = source.length
        while position < length {
            let status = try await source.blockStatus(of: GuestRange(GuestOffset(position), byteCount: length - position)).status
            var end = position + status.byteCount
            if status.flags.isSuperset(of: [.data, .allocated]), !status.flags.contains(.zero) {
                end = end.roundedUp(to: clusterSize)
                total += end - position.roundedDown(to: clusterSize)
            }
            position = end
            progress(position, length)
        }
        return total
    }
}

extension ClusterGeometry {
    /// What header, mapping and refcounts take for a disk on which every cluster is allocated. Bytes.
    func tableBytes(forDisk size: Int) -> Int {
        let l2 = clusters((size >> clusterBits) * 8 * l2EntryWords)
        let l1 = clusters(l2 * 8)
        var metadata = 1 + l2 + l1
        // The refcounts count their own blocks and table as well.
        let others = metadata + size >> clusterBits
        var (blocks, table) = (0, 0)
        while true {
            let needed = (others + blocks + table).dividedRoundingUp(by: refcountsPerBlock)
            if needed <= blocks { break }
            blocks = needed
            table = clusters(blocks * 8)
        }
        metadata += blocks + table
        return metadata << clusterBits
    }

    /// What persistent bitmaps take: a directory, and for each a table and its bits. Bytes.
    fileprivate func bitmapBytes(_ bitmaps: [MeasuredBitmap], forDisk size: Int) -> Int {
        var directory = 0
        var total = 0
        for bitmap in bitmaps {
            let bits = clusters(size.dividedRoundingUp(by: bitmap.granularity).dividedRoundingUp(by: 8))
            total += bits + clusters(bits * 8)
            directory += (24 + bitmap.nameByteCount).roundedUp(to: 8)
        }
        return (total + clusters(directory)) << clusterBits
    }
}
