package import BlockGraph
package import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

/// A file of the host, seen byte for byte (`driver=file`).
///
/// It is opened read-only until a parent needs to write, and goes back when none does any more (`auto-read-only`); without that option it is
/// opened for writing at once, so that a user hears early what is not possible. While it is open it holds the image locks that QEMU's
/// processes look at (`locking`).
package final class FileDriver: BlockDriver, Flushing, ZeroWriting, Discarding, Resizing, StatusReporting, HostFileBacked, @unchecked Sendable {
    // unchecked: `file` and `held` change only in the permission hooks and `close`, while no request runs.

    package static let formatName = "file"
    package static let kind = DriverKind.protocol

    private let path: String
    private let options: NodeOptions
    private let takesLocks: Bool
    /// The file in use. Reads and writes go here.
    private var file: HostFile
    /// The size as the graph sees it: that of the file, rounded up to whole units.
    private let size: Atomic<Int>
    /// 512 bytes, as in all of QEMU's sizes; more where O_DIRECT moves more at a time.
    private let unit: Int
    package let limits: BlockLimits

    /// A run of the file that is known to hold data, in bytes: finding the next hole walks through the file's map, and callers ask piece by piece.
    /// That somebody else has made a hole of it since does no harm: data is what a hole may always be called.
    private let knownData = Mutex(0..<0)

    /// The locks that are held, as bit masks over permissions.
    private var held: Locks
    /// A change that has been prepared and waits to be put into force.
    private var prepared: Prepared?

    private struct Locks: Equatable {
        var used: UInt8 = 0
        var unshared: UInt8 = 0
    }

    private struct Prepared {
        var file: HostFile
        var locks: Locks
    }

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .file(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'file'") }
        return try await FileDriver(own, opener.options)
    }

    private init(_ own: BlockdevOptionsFile, _ options: NodeOptions) async throws(BlockError) {
        path = own.filename
        self.options = options
        let mode: AsyncIOMode =
            switch own.aio {
            case .threads: .threads
            case .native: .native
            case .ioUring: .ioUring
            case nil: .automatic
            }
        if mode == .native, !options.bypassesCache {
            throw BlockError(.invalidArgument, "aio=native was specified, but it requires cache.direct=on, which was not specified.")
        }
        takesLocks = own.locking != .off && !options.forceShare
        let opensWritable = !options.isReadOnly && !options.isAutoReadOnly
        let request = HostFile.OpenOptions(writable: opensWritable, direct: options.bypassesCache)
        let file = try await Self.openFile(path, request, mode)
        let status = try file.status()
        unit = options.bypassesCache ? max(file.directAlignment, 512) : 512
        size = Atomic(status.size.roundedUp(to: unit))
        let unit = options.bypassesCache ? unit : 1
        limits = BlockLimits(
            requestAlignment: unit, memoryAlignment: options.bypassesCache ? 4096 : 1, maxTransfer: 1 << 30, zeroAlignment: unit, discardAlignment: unit)
        self.file = file
        held = Locks()
    }

    private static func openFile(_ path: String, _ request: HostFile.OpenOptions, _ mode: AsyncIOMode) async throws(BlockError) -> HostFile {
        if let file = HostFile.openedWithoutWaiting(path, request, mode: mode) { return file }
        // Looking the name up may wait for a disk or a server.
        let result = await BlockingPool.run { () -> Result<HostFile, BlockError> in
            do throws(BlockError) { return .success(try HostFile(opening: path, request, mode: mode)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    package var length: Int { size.load(ordering: .relaxed) }
    package var filename: String? { path }
    /// What `img info` reports as "disk size": bytes on disk.
    package var allocatedSize: Int { get throws(BlockError) { try file.status().allocatedSize } }

    // MARK: Requests

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool { file.tryRead(target, at: offset.asHost) }

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        try await file.read(target, at: offset.asHost)
    }

    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        guard flags.isEmpty, file.tryWrite(source, at: offset.asHost) else { return false }
        grow(to: offset + source.byteCount)
        return true
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        try await file.write(source, at: offset.asHost)
        grow(to: offset + source.byteCount)
    }

    private func grow(to end: GuestOffset) {
        if end.rawValue > size.load(ordering: .relaxed) { size.max(end.rawValue.roundedUp(to: unit), ordering: .relaxed) }
    }

    package func flush() async throws(BlockError) { try await file.flush() }

    package func hostFileRange(of range: GuestRange) -> HostFileRange? {
        options.bypassesCache ? nil : HostFileRange(descriptor: file.descriptor, offset: range.start.rawValue)
    }

    // MARK: Space

    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        defer { forgetKnownData() }
        let fileSize = try file.status().size
        if range.start.rawValue >= fileSize, file.isRegularFile, flags.contains(.mayUnmap) {
            // Beyond the end there is nothing to punch: growing is zeroing. The file grows by its last byte and not by setting its size, which
            // would cut off what somebody else writes further on in the meantime.
            let last = IOBuffer(zeroed: 1)
            defer { withExtendedLifetime(last) {} }
            try await file.write(last.vector, at: (range.end - 1).asHost)
            grow(to: range.end)
            return .done
        }
        var outcome = HostFile.SpaceOutcome.unsupported
        if flags.contains(.mayUnmap), range.end.rawValue <= fileSize { outcome = try await file.punchHole(at: range.start.asHost, byteCount: range.byteCount) }
        if outcome == .unsupported { outcome = try await file.zeroRange(at: range.start.asHost, byteCount: range.byteCount) }
        // Some file systems (tmpfs) know holes but not zeroed ranges: a hole with its space reserved again is the same to a reader.
        if outcome == .unsupported, range.end.rawValue <= fileSize {
            outcome = try await file.punchHole(at: range.start.asHost, byteCount: range.byteCount)
            if outcome == .done { _ = try await file.allocate(at: range.start.asHost, byteCount: range.byteCount) }
        }
        if outcome == .unsupported { return .unsupported }
        grow(to: range.end)
        return .done
    }

    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        defer { forgetKnownData() }
        return try await file.punchHole(at: range.start.asHost, byteCount: range.byteCount) == .done ? .done : .unsupported
    }

    /// To be called when what was data may have become a hole.
    private func forgetKnownData() { knownData.withLock { $0 = 0..<0 } }

    package func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        defer { forgetKnownData() }
        let old = try file.status().size
        guard file.isRegularFile else {
            if byteCount > old || (exact && byteCount != old) {
                throw BlockError(.unsupported, "Cannot change the size of '\(path)': it is a device of \(old) bytes")
            }
            return
        }
        switch preallocation {
        case .off: try await file.setSize(byteCount)
        case .metadata: throw BlockError(.unsupported, "Preallocation mode 'metadata' is not supported for '\(path)'")
        case .falloc, .full:
            guard byteCount >= old else { throw BlockError(.invalidArgument, "Preallocation cannot be used for shrinking '\(path)'") }
            do throws(BlockError) {
                var reserved = HostFile.SpaceOutcome.unsupported
                if preallocation == .falloc { reserved = try await file.allocate(at: HostOffset(old), byteCount: byteCount - old) }
                if reserved == .unsupported { try await writeZeroData(from: old, to: byteCount) }
            } catch {
                // A failed operation leaves things as they were.
                try await file.setSize(old)
                throw error
            }
        }
        size.store(byteCount.roundedUp(to: unit), ordering: .relaxed)
    }

    private func writeZeroData(from start: Int, to end: Int) async throws(BlockError) {
        let buffer = IOBuffer(zeroed: min(1 << 20, max(end - start, 1)))
        defer { withExtendedLifetime(buffer) {} }
        var position = start
        while position < end {
            let count = min(buffer.byteCount, end - position)
            try await file.write(buffer.vector(at: 0, byteCount: count), at: HostOffset(position))
            position += count
        }
    }

    package func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus? {
        // Without the question about zeroes everything in a file counts as data, which needs no look.
        precise ? nil : status(range, .init([.data, .allocated, .offsetValid]), range.byteCount)
    }

    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        guard precise else { return status(range, [.data, .allocated, .offsetValid], range.byteCount) }
        let start = range.start.rawValue
        let known = knownData.withLock { $0 }
        if known.contains(start) {
            return status(range, [.data, .allocated, .offsetValid], min(known.upperBound - start, range.byteCount))
        }
        guard let extent = try file.extent(at: range.start.asHost) else {
            // Between the file's end and the size rounded up.
            return status(range, [.zero, .allocated, .offsetValid], range.byteCount)
        }
        if extent.isData { knownData.withLock { $0 = start..<start + extent.byteCount } }
        let flags: BlockStatus.Flags = extent.isData ? [.data, .allocated, .offsetValid] : [.zero, .allocated, .offsetValid]
        return status(range, flags, min(extent.byteCount, range.byteCount))
    }

    private func status(_ range: GuestRange, _ flags: BlockStatus.Flags, _ byteCount: Int) -> BlockStatus {
        BlockStatus(byteCount: byteCount, flags: flags, offset: range.start.asHost)
    }

    // MARK: Permissions: locks, and writable when somebody writes

    package func canBecomeWritable() async -> Bool {
        if options.isReadOnly { return false }
        if file.options.writable { return true }
        let (current, request) = (file, HostFile.OpenOptions(writable: true, direct: options.bypassesCache))
        return await BlockingPool.run {
            do throws(BlockError) {
                _ = try current.reopened(request)
                return true
            } catch { return false }
        }
    }

    package func preparePermissions(_ grant: PermissionGrant) async throws(BlockError) {
        let isWriting = !grant.used.isDisjoint(with: [.write, .writeUnchanged, .resize])
        // Without auto-read-only the file stays as it was opened.
        let wantsWritable = options.isAutoReadOnly && !options.isReadOnly ? isWriting : file.options.writable
        var next = file
        if wantsWritable != file.options.writable {
            let (current, request) = (file, HostFile.OpenOptions(writable: wantsWritable, direct: options.bypassesCache))
            let result = await BlockingPool.run { () -> Result<HostFile, BlockError> in
                do throws(BlockError) { return .success(try current.reopened(request)) } catch { return .failure(error) }
            }
            next = try result.get()
        }
        var locks = Locks()
        if takesLocks { locks = Locks(used: grant.used.rawValue, unshared: BlockPermissions.all.subtracting(grant.shared).rawValue) }
        if next === file {
            try next.acquireLocks(used: locks.used, unshared: locks.unshared, previouslyUsed: held.used, previouslyUnshared: held.unshared)
        } else {
            try acquireOnReopened(next, locks)
        }
        prepared = Prepared(file: next, locks: locks)
    }

    /// Locks belong to an open file, so a reopened one starts without any, and asking who else holds some would find our own older ones.
    /// Those of the old file are given up for the moment of asking and taken back if somebody objects.
    private func acquireOnReopened(_ next: HostFile, _ locks: Locks) throws(BlockError) {
        file.releaseLocks(used: held.used, unshared: held.unshared)
        do throws(BlockError) {
            try next.acquireLocks(used: locks.used, unshared: locks.unshared, previouslyUsed: 0, previouslyUnshared: 0)
        } catch {
            try file.acquireLocks(used: held.used, unshared: held.unshared, previouslyUsed: 0, previouslyUnshared: 0)
            throw error
        }
    }

    package func commitPermissions() async {
        guard let change = prepared else { return }
        prepared = nil
        if change.file === file { file.releaseLocks(used: held.used & ~change.locks.used, unshared: held.unshared & ~change.locks.unshared) }
        file = change.file
        held = change.locks
    }

    package func abortPermissions() async {
        guard let change = prepared else { return }
        prepared = nil
        if change.file === file {
            file.releaseLocks(used: change.locks.used & ~held.used, unshared: change.locks.unshared & ~held.unshared)
            return
        }
        change.file.releaseLocks(used: change.locks.used, unshared: change.locks.unshared)
        do throws(BlockError) {
            try file.acquireLocks(used: held.used, unshared: held.unshared, previouslyUsed: 0, previouslyUnshared: 0)
        } catch {
            StandardStreams.warn("Lost a lock while going back to how things were: \(error)")
        }
    }

    package func close() async throws(BlockError) {
        file.releaseLocks(used: held.used, unshared: held.unshared)
        held = Locks()
    }
}
