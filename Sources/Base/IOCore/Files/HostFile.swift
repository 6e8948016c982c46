internal import CStrataLinux
package import StrataBase
import Glibc
import Synchronization

/// How requests that would block are executed (QEMU's `aio` option).
package enum AsyncIOMode: Sendable, Hashable {
    /// The ring when the kernel gives one, else worker threads.
    case automatic
    case threads, native, ioUring
}

/// An open file or block device of the host.
///
/// Reads and writes have two forms. The `try` form answers at once or not at all: from the page cache, or from a file system that lives in
/// memory. The async form goes to the engine that `mode` names, on the context of the caller; a caller outside any context is served by
/// worker threads. All calls may be made from any thread at the same time.
package final class HostFile: Sendable {
    package struct OpenOptions: Sendable, Hashable {
        package var writable = false
        /// Creates the file if it is not there. Needs `writable`.
        package var create = false
        /// Empties an existing file.
        package var truncate = false
        /// Bypasses the page cache (O_DIRECT).
        package var direct = false
        package init(writable: Bool = false, create: Bool = false, truncate: Bool = false, direct: Bool = false) {
            self.writable = writable
            self.create = create
            self.truncate = truncate
            self.direct = direct
        }

        fileprivate var systemOptions: Int32 {
            var options = 0
            if writable { options |= STRATA_OPEN_WRITE }
            if create { options |= STRATA_OPEN_CREATE }
            if truncate { options |= STRATA_OPEN_TRUNCATE }
            if direct { options |= STRATA_OPEN_DIRECT }
            return Int32(options)
        }
    }

    package let path: String
    package let options: OpenOptions
    package let mode: AsyncIOMode
    /// The most requests of this file to hand to the kernel at once; 0 leaves it to the engine (QEMU's `aio-max-batch`).
    package let maxBatch: Int
    package let descriptor: Int32
    package let isBlockDevice: Bool
    package let isRegularFile: Bool
    /// The file lies in memory (tmpfs): plain reads and writes never wait for a disk.
    package let isMemoryBacked: Bool
    /// Set when the file is a member of a set of descriptors rather than opened by name.
    private let lease: DescriptorSets.Lease?
    /// The errno of a flush that failed: the kernel reports it once and may have dropped the data, so every later flush has to fail too.
    private let flushFailure = Atomic<Int32>(0)
    /// The file system cannot share blocks between files; learned from its first refusal.
    let refusesClones = Atomic<Bool>(false)
    /// A worker thread is starting writeback.
    private let isWritingBack = Atomic<Bool>(false)
    /// Whether a non-waiting read works here; learned from the first refusal.
    private let supportsNoWait = Atomic<Bool>(true)

    /// Long writes are faster when their blocks have been reserved; given up after the first refusal.
    private let reservesBlocks: Atomic<Bool>
    /// What makes reserving worth a call, in bytes: it costs the time that it saves at about 100 KiB.
    private static let leastReserved = 256 << 10

    /// Inline writes to the page cache up to this many bytes: a copy of some microseconds. Longer ones would hold up the loop, unless that is what the
    /// thread is for (`IOContext.isForCopying`).
    private static let inlineWriteLimit = 128 << 10

    /// Opens a file. Blocks while the file system looks the name up.
    /// - Throws: the kernel's refusal, with the path.
    package convenience init(opening path: String, _ options: OpenOptions = OpenOptions(), mode: AsyncIOMode = .automatic, maxBatch: Int = 0) throws(BlockError) {
        let descriptor = HostPath.isCutOff(path) ? -ENOENT : unsafe strata_open(path, options.systemOptions)
        if descriptor < 0 { throw BlockError(errno: -descriptor, "Could not open '\(path)'") }
        try self.init(descriptor: descriptor, path: path, options, mode: mode, maxBatch: maxBatch)
    }

    /// Uses the member of a descriptor set that is open in the way asked for.
    /// - Parameter path: the set's name, `/dev/fdset/N`.
    /// - Throws: which kind of member is missing.
    package convenience init(
        memberOf sets: DescriptorSets, named path: String, _ options: OpenOptions, mode: AsyncIOMode = .automatic, maxBatch: Int = 0
    ) throws(BlockError) {
        do throws(BlockError) {
            let (descriptor, lease) = try sets.open(path, options)
            try self.init(descriptor: descriptor, path: path, options, mode: mode, maxBatch: maxBatch, lease: lease)
        } catch {
            throw error.during("Could not open '\(path)'")
        }
    }

    /// Opens a file whose name and inode the kernel has at hand, so that nothing waits; nil when that is not so, or when anything is wrong: then
    /// open it where waiting does no harm, which also tells what is wrong.
    package static func openedWithoutWaiting(_ path: String, _ options: OpenOptions, mode: AsyncIOMode = .automatic, maxBatch: Int = 0) -> HostFile? {
        if HostPath.isCutOff(path) { return nil }
        let descriptor = unsafe strata_open_cached(path, options.systemOptions)
        if descriptor < 0 { return nil }
        do throws(BlockError) { return try HostFile(descriptor: descriptor, path: path, options, mode: mode, maxBatch: maxBatch) } catch { return nil }
    }

    private init(
        descriptor: Int32, path: String, _ options: OpenOptions, mode: AsyncIOMode, maxBatch: Int, lease: DescriptorSets.Lease? = nil
    ) throws(BlockError) {
        var status = strata_file_status()
        let result = unsafe strata_status(descriptor, &status)
        if result < 0 {
            _ = strata_close(descriptor)
            throw BlockError(errno: -result, "Could not examine '\(path)'")
        }
        guard status.is_regular != 0 || status.is_block_device != 0 else {
            _ = strata_close(descriptor)
            throw BlockError(.invalidArgument, "'\(path)' is neither a regular file nor a block device")
        }
        // The kernel lets a privileged process open a read-only device for writing, and then fails every write.
        if status.is_block_device != 0, options.writable, strata_device_is_read_only(descriptor) != 0 {
            _ = strata_close(descriptor)
            throw BlockError(errno: EACCES, "Could not open '\(path)' for writing, because the device is read-only")
        }
        self.descriptor = descriptor
        self.path = path
        self.options = options
        self.mode = mode
        self.maxBatch = maxBatch
        self.lease = lease
        isBlockDevice = status.is_block_device != 0
        isRegularFile = status.is_regular != 0
        isMemoryBacked = status.is_memory != 0
        reservesBlocks = Atomic(status.delays_allocation != 0 && options.writable && !options.direct)
    }

    /// Closes the file now, although somebody may hold the object a moment longer. Requests that come after all are refused (EBADF).
    package func close() {
        _ = strata_close_in_place(descriptor)
        lease?.end()
    }

    deinit { _ = strata_close(descriptor) }

    /// The same file (not merely the same name) opened with other rights, another cache mode or another engine. A member of a descriptor set is
    /// exchanged for the member that fits.
    /// - Parameter mode: nil keeps the engine. `maxBatch` likewise.
    package func reopened(_ options: OpenOptions, mode: AsyncIOMode? = nil, maxBatch: Int? = nil) throws(BlockError) -> HostFile {
        let (mode, maxBatch) = (mode ?? self.mode, maxBatch ?? self.maxBatch)
        let what = "Could not reopen '\(path)'\(options.writable ? " for writing" : "")"
        let file: HostFile
        if let lease {
            do throws(BlockError) {
                let (copy, lease) = try lease.sets.duplicate(from: lease.number, options)
                file = try HostFile(descriptor: copy, path: path, options, mode: mode, maxBatch: maxBatch, lease: lease)
                let (old, new) = (try status(), try file.status())
                guard old.device == new.device, old.inode == new.inode else {
                    throw BlockError(.invalidArgument, "the \(options.writable ? "read-write" : "read-only") descriptor of fdset \(lease.number) is another file")
                }
            } catch {
                throw error.during(what)
            }
        } else {
            let copy = strata_reopen(descriptor, options.systemOptions)
            if copy < 0 { throw BlockError(errno: -copy, what) }
            file = try HostFile(descriptor: copy, path: path, options, mode: mode, maxBatch: maxBatch)
        }
        // What the page cache has lost is lost for every way of opening the file that goes through it.
        if !options.direct { file.flushFailure.store(flushFailure.load(ordering: .relaxed), ordering: .relaxed) }
        return file
    }

    /// Whether both use one open file of the kernel's, so that they have their locks in common: duplicates of one member of a descriptor set.
    package func sharesLocks(with other: HostFile) -> Bool {
        self === other || (lease != nil && other.lease?.number == lease?.number && options.writable == other.options.writable && options.direct == other.options.direct)
    }

    package struct Status: Sendable, Hashable {
        /// Bytes; the capacity of a block device.
        package var size: Int
        /// Bytes on disk.
        package var allocatedSize: Int
        /// Device and inode: equal for two names of one file.
        package var device: UInt64, inode: UInt64
    }

    package func status() throws(BlockError) -> Status {
        var status = strata_file_status()
        let result = unsafe strata_status(descriptor, &status)
        if result < 0 { throw failure(result, "examining") }
        return Status(
            size: Int(status.size), allocatedSize: Int(status.allocated), device: status.device, inode: status.inode)
    }

    /// What O_DIRECT offsets and lengths have to be multiples of, in bytes: a power of two. A page where the kernel does not tell.
    package var directAlignment: Int {
        // Memory takes every request, whatever is asked for.
        if isMemoryBacked { return 1 }
        let alignment = Int(strata_direct_alignment(descriptor))
        return alignment.isPowerOfTwo ? alignment : 4096
    }

    func failure(_ result: Int32, _ what: String) -> BlockError { BlockError(errno: -result, "\(what) '\(path)' failed") }
    private func failure(_ result: Int, _ what: String) -> BlockError { failure(Int32(truncatingIfNeeded: result), what) }

    // MARK: Reads and writes

    /// Reads without waiting for a disk. False: not all of it can be had that way (or there is an error): use `read`.
    package func tryRead(_ target: IOVector, at offset: HostOffset) -> Bool {
        if options.direct { return false }
        let count: Int
        if isMemoryBacked {
            count = unsafe target.withSystemVector { unsafe strata_preadv(descriptor, $0, $1, Int64(offset.rawValue)) }
        } else {
            guard supportsNoWait.load(ordering: .relaxed) else { return false }
            count = unsafe target.withSystemVector { unsafe strata_preadv_nowait(descriptor, $0, $1, Int64(offset.rawValue)) }
            if count == -Int(EOPNOTSUPP) { supportsNoWait.store(false, ordering: .relaxed) }
        }
        Trace.ioTryRead(descriptor: Int(descriptor), offset: offset.rawValue, bytes: target.byteCount, done: count == target.byteCount)
        return count == target.byteCount
    }

    /// Reads `target.byteCount` bytes. What lies beyond the end of the file reads as zeroes.
    package func read(_ target: IOVector, at offset: HostOffset) async throws(BlockError) {
        var done = 0
        while done < target.byteCount {
            let rest = target.slice(at: done, byteCount: target.byteCount - done)
            let count = Int(await transfer(.read, rest, at: offset.rawValue + done))
            if count < 0 { throw failure(count, "reading \(target.byteCount) bytes at offset \(offset.rawValue) of") }
            if count == 0 {
                rest.zero()
                return
            }
            done += count
        }
    }

    /// Writes without waiting for a disk. False: it was not done, or only in part: use `write`, which starts over.
    package func tryWrite(_ source: IOVector, at offset: HostOffset) -> Bool {
        if options.direct || !(isMemoryBacked || source.byteCount <= Self.inlineWriteLimit || writesHere) { return false }
        if source.byteCount >= Self.leastReserved { reserve(source.byteCount, at: offset.rawValue) }
        let count = unsafe source.withSystemVector { unsafe strata_pwritev(descriptor, $0, $1, Int64(offset.rawValue)) }
        Trace.ioTryWrite(descriptor: Int(descriptor), offset: offset.rawValue, bytes: source.byteCount, done: count == source.byteCount)
        return count == source.byteCount
    }

    /// Whether the calling thread may be held up by writes to the page cache.
    private var writesHere: Bool { !options.direct && mode == .automatic && IOContext.current?.isForCopying == true }

    /// Has the file system set the blocks of a long write apart at once, instead of one page after the other while it copies them: a third of the time that
    /// the copy takes (Docs/Decisions/0011). Writes say themselves what is wrong, if anything is.
    private func reserve(_ byteCount: Int, at offset: Int) {
        guard reservesBlocks.load(ordering: .relaxed) else { return }
        if strata_reserve(descriptor, Int64(offset), Int64(byteCount)) == -EOPNOTSUPP { reservesBlocks.store(false, ordering: .relaxed) }
    }

    /// Writes all of `source`.
    package func write(_ source: IOVector, at offset: HostOffset) async throws(BlockError) {
        var done = 0
        while done < source.byteCount {
            let rest = source.slice(at: done, byteCount: source.byteCount - done)
            let count = Int(await transfer(.write, rest, at: offset.rawValue + done))
            if count < 0 { throw failure(count, "writing \(source.byteCount) bytes at offset \(offset.rawValue) of") }
            if count == 0 { throw BlockError(.noSpace, "writing \(source.byteCount) bytes at offset \(offset.rawValue) of '\(path)' made no progress") }
            done += count
        }
    }

    private enum Direction: String { case read, write }

    /// One attempt on the engine in charge. Bytes transferred, possibly fewer than asked for, or a negative errno.
    private func transfer(_ direction: Direction, _ vector: IOVector, at offset: Int) async -> Int32 {
        if direction == .write, writesHere {
            return Int32(truncatingIfNeeded: unsafe vector.withSystemVector { unsafe strata_pwritev(descriptor, $0, $1, Int64(offset)) })
        }
        if let context = IOContext.current {
            switch mode {
            case .automatic, .ioUring:
                if let ring = context.ringEngine() {
                    while true {
                        let result = await ring.perform(direction == .read ? .read : .write, descriptor, vector, at: offset)
                        // The kernel has not begun; it is asked again.
                        if result != -EAGAIN, result != -EINTR { return result }
                    }
                }
            case .native:
                // Without O_DIRECT the kernel would run the request inside io_submit and hold up the loop.
                if options.direct, let engine = context.nativeAIOEngine() {
                    return await engine.perform(write: direction == .write, descriptor, vector, at: offset, maxBatch: batchLimit(context))
                }
            case .threads: break
            }
        }
        Trace.ioWorkerBegin(operation: direction.rawValue, descriptor: Int(descriptor), offset: offset, bytes: vector.byteCount)
        defer { Trace.ioWorkerEnd(operation: direction.rawValue, descriptor: Int(descriptor), offset: offset) }
        return await BlockingPool.run { [descriptor] in
            let count = unsafe vector.withSystemVector { list, length in
                direction == .read
                    ? unsafe strata_preadv(descriptor, list, length, Int64(offset)) : unsafe strata_pwritev(descriptor, list, length, Int64(offset))
            }
            return Int32(truncatingIfNeeded: count)
        }
    }

    /// The smaller one of the file's and the thread's limit; 0 for none.
    private func batchLimit(_ context: IOContext) -> Int {
        let limits = (maxBatch, context.maxBatch)
        return limits.0 > 0 && limits.1 > 0 ? min(limits.0, limits.1) : max(limits.0, limits.1)
    }

    /// Has the disk begin to write what is in the page cache, so that a flush that comes later has less to wait for. Returns at once; tells of no error,
    /// which is left to the flush.
    package func startWriteback() {
        if options.direct || isMemoryBacked || isWritingBack.exchange(true, ordering: .acquiring) { return }
        // Queueing for the disk can take its time.
        BlockingPool.submit { [self] in
            strata_start_writeback(descriptor)
            isWritingBack.store(false, ordering: .releasing)
        }
    }

    /// Everything written before the call is on stable storage after it, the file size included.
    ///
    /// After a failure nobody knows what became of the data in the page cache, and the kernel would call the next flush a success. So every later one
    /// fails as well, until the file is opened anew; around the page cache (O_DIRECT) there is nothing to lose, and a later flush counts.
    package func flush() async throws(BlockError) {
        let earlier = flushFailure.load(ordering: .relaxed)
        if earlier != 0 { throw failure(-earlier, "an earlier flush failed, and what was written before it may be lost: flushing") }
        var result: Int32
        if mode != .threads, let context = IOContext.current, let ring = context.ringEngine() {
            result = await ring.perform(.flush, descriptor, nil, at: 0)
        } else {
            Trace.ioWorkerBegin(operation: "flush", descriptor: Int(descriptor), offset: 0, bytes: 0)
            result = await BlockingPool.run { [descriptor] in strata_fdatasync(descriptor) }
            Trace.ioWorkerEnd(operation: "flush", descriptor: Int(descriptor), offset: 0)
        }
        // Some special files have nothing to flush.
        if result == -EINVAL || result == -EROFS { result = 0 }
        // Of several flushes at a time the kernel tells one of the failure.
        if result == 0 { result = -flushFailure.load(ordering: .relaxed) }
        if result < 0 {
            if !options.direct { flushFailure.store(-result, ordering: .relaxed) }
            throw failure(result, "flushing")
        }
    }
}
