internal import CStrataLinux
import Glibc
package import StrataBase
import Synchronization

// Space management: what is allocated, and how to allocate and return it.

extension HostFile {
    /// What became of a request that a file system may not know.
    package enum SpaceOutcome: Sendable, Hashable { case done, unsupported }

    /// Makes a range read as zeroes and returns its space to the file system. The size does not change.
    package func punchHole(at offset: HostOffset, byteCount: Int) async throws(BlockError) -> SpaceOutcome {
        try await space("punching a hole into") { [descriptor] in strata_punch_hole(descriptor, Int64(offset.rawValue), Int64(byteCount)) }
    }

    /// Makes a range read as zeroes and keeps (or reserves) its space.
    package func zeroRange(at offset: HostOffset, byteCount: Int) async throws(BlockError) -> SpaceOutcome {
        try await space("zeroing a range of") { [descriptor] in strata_zero_range(descriptor, Int64(offset.rawValue), Int64(byteCount)) }
    }

    /// Reserves space for a range; the file grows to its end if it is shorter.
    package func allocate(at offset: HostOffset, byteCount: Int) async throws(BlockError) -> SpaceOutcome {
        try await space("allocating space in") { [descriptor] in strata_allocate(descriptor, Int64(offset.rawValue), Int64(byteCount)) }
    }

    /// Sets the size in bytes. New bytes read as zeroes.
    package func setSize(_ size: Int) async throws(BlockError) {
        // As for `space`.
        let result =
            isMemoryBacked || IOContext.current?.isForCopying == true
            ? strata_truncate(descriptor, Int64(size)) : await BlockingPool.run { [descriptor] in strata_truncate(descriptor, Int64(size)) }
        if result < 0 { throw failure(result, "resizing to \(size) bytes") }
    }

    func space(_ what: String, _ call: @escaping @Sendable () -> Int32) async throws(BlockError) -> SpaceOutcome {
        // In memory these calls take microseconds; a disk may wait for its journal.
        let result = isMemoryBacked ? call() : await BlockingPool.run(call)
        switch result {
        case 0: return .done
        case -EOPNOTSUPP, -ENOSYS, -ENODEV, -EINVAL, -ENOTTY: return .unsupported
        default: throw failure(result, what)
        }
    }

    /// What lies at `offset`: data or a hole, and how far (bytes) that goes on at least.
    package struct Extent: Sendable, Hashable {
        package var isData: Bool
        package var byteCount: Int
    }

    /// Asks the file system. A file system that cannot tell says data up to the end.
    /// - Parameter offset: below the file's size.
    /// - Returns: nil at or beyond the end of the file.
    package func extent(at offset: HostOffset) throws(BlockError) -> Extent? {
        let start = Int64(offset.rawValue)
        let data = strata_seek_data(descriptor, start)
        if data == Int64(-ENXIO) {
            let size = try status().size
            return size > offset.rawValue ? Extent(isData: false, byteCount: size - offset.rawValue) : nil
        }
        if data < 0 {
            let size = try status().size
            return size > offset.rawValue ? Extent(isData: true, byteCount: size - offset.rawValue) : nil
        }
        if data > start { return Extent(isData: false, byteCount: Int(data - start)) }
        let hole = strata_seek_hole(descriptor, start)
        // A file that shrinks under us can answer anything; never report an empty extent.
        return Extent(isData: true, byteCount: max(hole < 0 ? try status().size - offset.rawValue : Int(hole - start), 1))
    }

    /// How QEMU advises file systems to allocate image files, in bytes: large enough that random writes do not scatter them.
    package static let usualExtentHint = 1 << 20

    /// Has the file system allocate space in pieces of that size; the file has to be empty. Advice: a file system that does not take it is no error.
    /// - Parameter byteCount: a multiple of the file system's block. 0: nothing is advised.
    package func setExtentHint(_ byteCount: Int) {
        guard byteCount > 0, let bytes = UInt32(exactly: byteCount) else { return }
        _ = strata_set_extent_hint(descriptor, bytes)
    }

    /// Lets the page cache forget the file, whose dirty pages have been written out.
    package func dropCache() async {
        _ = await BlockingPool.run { [descriptor] in strata_drop_cache(descriptor) }
    }

    /// How many pages of the file are in the page cache.
    package func cachedPageCount() async throws(BlockError) -> Int {
        let size = try status().size
        let count = await BlockingPool.run { [descriptor] in strata_count_cached(descriptor, Int64(size)) }
        if count < 0 { throw failure(Int32(truncatingIfNeeded: count), "looking for cached pages of") }
        return Int(count)
    }

    /// Copies bytes inside the kernel, sharing blocks where the file system can.
    ///
    /// Sharing is asked for by itself first (FICLONERANGE): it costs the same for any length and is all or nothing. copy_file_range shares too on some
    /// file systems, but in pieces, and on others it copies what could be shared.
    /// - Parameter sharedOnly: copy nothing that cannot be shared.
    /// - Returns: bytes copied, possibly fewer, 0 where the source has ended; nil when these two files cannot be copied this way.
    package func copyRange(
        from source: HostFile, at sourceOffset: HostOffset, to offset: HostOffset, byteCount: Int, sharedOnly: Bool = false
    ) async throws(BlockError) -> Int? {
        let sharesBlocks =
            isRegularFile && source.isRegularFile && !refusesClones.load(ordering: .relaxed)
            && (sourceOffset.rawValue | offset.rawValue | byteCount).isAligned(to: Self.smallestBlock)
        if sharedOnly, !sharesBlocks { return nil }
        let (cloned, result) = await BlockingPool.run { [descriptor, from = source.descriptor] () -> (Int32, Int) in
            let (start, end) = (Int64(sourceOffset.rawValue), Int64(offset.rawValue))
            let cloned = sharesBlocks ? strata_clone_range(from, start, descriptor, end, Int64(byteCount)) : -EINVAL
            if cloned == 0 { return (0, byteCount) }
            return (cloned, sharedOnly ? -Int(EOPNOTSUPP) : strata_copy_file_range(from, start, descriptor, end, byteCount))
        }
        switch cloned {
        case -EOPNOTSUPP, -ENOTTY, -ENOSYS: refusesClones.store(true, ordering: .relaxed)
        default: break
        }
        switch result {
        case -Int(EOPNOTSUPP), -Int(ENOSYS), -Int(EXDEV), -Int(EINVAL), -Int(EBADF): return nil
        case ..<0: throw failure(Int32(truncatingIfNeeded: result), "copying \(byteCount) bytes to offset \(offset.rawValue) of")
        default: return result
        }
    }

    /// Blocks that can be shared are multiples of this many bytes.
    private static let smallestBlock = 512
}
