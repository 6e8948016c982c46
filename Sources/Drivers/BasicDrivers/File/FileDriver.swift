package import BlockGraph
import Glibc
package import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

/// A file of the host, seen byte for byte (`driver=file`).
///
/// It is opened read-only until a parent needs to write, and goes back when none does any more (`auto-read-only`); without that option it is
/// opened for writing at once, so that a user hears early what is not possible. While it is open it holds the image locks that QEMU's
/// processes look at (`locking`). Access, locks and reopening are in `FileDriver+Access.swift`, space in `FileDriver+Space.swift`.
package class FileDriver: BlockDriver, Flushing, HostFileBacked, SpaceReporting, @unchecked Sendable {
    // unchecked: what is `var` changes only in the permission and reopen hooks and in `close`, while no request runs.

    package class var formatName: String { "file" }
    package static let kind = DriverKind.protocol

    let path: String
    /// How the node wants its file. Changed by reopening.
    var configuration: Configuration
    /// The configuration that a reopen prepares.
    var candidate: Configuration?
    private let fileInUse: QuiescentReference<HostFile>
    /// The file in use. Reads and writes go here.
    final var file: HostFile {
        get { fileInUse.object }
        set { fileInUse.replace(by: newValue) }
    }
    /// The size as the graph sees it: that of the file, rounded up to whole sectors. With O_DIRECT too, where requests may have larger units: how a
    /// file is read does not change how long the disk is.
    let size: Atomic<Int>
    /// What sizes are multiples of, in bytes, as in all of QEMU's sizes.
    static let sector = 512
    package final var limits: BlockLimits

    /// A run of the file that is known to hold data, in bytes: finding the next hole walks through the file's map, and callers ask piece by piece.
    /// That somebody else has made a hole of it since does no harm: data is what a hole may always be called.
    let knownData = Mutex(0..<0)

    /// The locks that are held.
    var held = ImageLocks()
    /// A change that has been prepared and waits to be put into force.
    var prepared: PreparedAccess?

    /// The branch of the options that is this driver's.
    static func ownOptions(_ options: BlockdevOptions) -> BlockdevOptionsFile? {
        switch options.branch {
        case .file(let own) where formatName == "file": own
        case .hostDevice(let own) where formatName == "host_device": own
        default: nil
        }
    }

    package class func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard let own = ownOptions(options) else { throw BlockError(.invalidArgument, "options of another driver were given to 'file'") }
        let driver = try await FileDriver(own, opener)
        guard driver.file.isRegularFile else { throw BlockError(.invalidArgument, "'file' driver requires '\(own.filename)' to be a regular file") }
        return driver
    }

    init(_ own: BlockdevOptionsFile, _ opener: NodeOpener) async throws(BlockError) {
        // The commands that a manager would pass on reach no device from here.
        if let manager = own.prManager { throw BlockError(.unsupported, "Persistent reservation managers ('pr-manager=\(manager)') are not supported") }
        path = own.filename
        let configuration = try Configuration(own, opener.options)
        let isWritable = !configuration.isReadOnly && !configuration.isAutoReadOnly
        let file = try await Self.openFile(path, configuration.openOptions(writable: isWritable), configuration, opener.descriptorSets)
        size = Atomic(0)
        self.configuration = configuration
        fileInUse = QuiescentReference(file)
        limits = Self.limits(of: file)
        let length = try file.status().size
        guard length <= BlockLimits.maximumLength else { throw BlockError(errno: EFBIG, "Could not refresh total sector count") }
        size.store(length.roundedUp(to: Self.sector), ordering: .relaxed)
    }

    private static func openFile(
        _ path: String, _ request: HostFile.OpenOptions, _ configuration: Configuration, _ sets: DescriptorSets
    ) async throws(BlockError) -> HostFile {
        let (mode, maxBatch) = (configuration.mode, configuration.maxBatch)
        if DescriptorSets.isName(path) { return try HostFile(memberOf: sets, named: path, request, mode: mode, maxBatch: maxBatch) }
        if let file = HostFile.openedWithoutWaiting(path, request, mode: mode, maxBatch: maxBatch) { return file }
        // Looking the name up may wait for a disk or a server.
        let result = await BlockingPool.run { () -> Result<HostFile, BlockError> in
            do throws(BlockError) { return .success(try HostFile(opening: path, request, mode: mode, maxBatch: maxBatch)) } catch { return .failure(error) }
        }
        return try result.get()
    }

    static func limits(of file: HostFile) -> BlockLimits {
        let isDirect = file.options.direct
        let requestUnit = isDirect && file.directAlignment > 1 ? max(file.directAlignment, sector) : 1
        var limits = BlockLimits(
            requestAlignment: requestUnit, memoryAlignment: isDirect ? 4096 : 1, maxTransfer: 1 << 30, zeroAlignment: requestUnit,
            discardAlignment: requestUnit)
        if let device = file.deviceLimits {
            limits.zeroAlignment = max(requestUnit, device.logicalBlockSize)
            limits.discardAlignment = max(limits.zeroAlignment, device.discardGranularity)
            limits.optimalTransfer = device.optimalTransfer
        }
        return limits
    }

    package final var length: Int { size.load(ordering: .relaxed) }
    package final var filename: String? { path }
    package final var supportedWriteFlags: RequestFlags { .forceUnitAccess }
    /// What `img info` reports as "disk size": bytes on disk.
    package final var allocatedSize: Int { get throws(BlockError) { try file.status().allocatedSize } }

    package final var allocatedByteCount: Int? { do throws(BlockError) { return try allocatedSize } catch { return nil } }

    // MARK: Requests

    package final func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool { fileInUse.borrow { $0.tryRead(target, at: offset.asHost) } }

    package final func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        Trace.fileReadBegin(path: path, offset: offset.rawValue, bytes: target.byteCount)
        defer { Trace.fileReadEnd(path: path, offset: offset.rawValue, bytes: target.byteCount) }
        try await file.read(target, at: offset.asHost)
    }

    package final func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        guard flags.isEmpty, fileInUse.borrow({ $0.tryWrite(source, at: offset.asHost) }) else { return false }
        grow(to: offset + source.byteCount)
        return true
    }

    package final func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        Trace.fileWriteBegin(path: path, offset: offset.rawValue, bytes: source.byteCount)
        defer { Trace.fileWriteEnd(path: path, offset: offset.rawValue, bytes: source.byteCount) }
        try await file.write(source, at: offset.asHost)
        grow(to: offset + source.byteCount)
        if flags.contains(.forceUnitAccess) { try await flush() }
    }

    final func grow(to end: GuestOffset) {
        if end.rawValue > size.load(ordering: .relaxed) { size.max(end.rawValue.roundedUp(to: Self.sector), ordering: .relaxed) }
    }

    package final func flush() async throws(BlockError) {
        Trace.fileFlushBegin(path: path)
        defer { Trace.fileFlushEnd(path: path) }
        try await file.flush()
    }

    package final func startWriteback() { file.startWriteback() }

    package final func hostFileRange(of range: GuestRange) -> HostFileRange? {
        configuration.bypassesCache ? nil : HostFileRange(descriptor: file.descriptor, offset: range.start.rawValue)
    }

    package final func close() async throws(BlockError) {
        // Explicitly, because a member of a descriptor set stays open without us.
        file.releaseLocks(used: held.used, unshared: held.unshared)
        held = ImageLocks()
        // The driver itself may be kept a moment longer, by a task that is just ending. Whoever removes a node may want to unmount what its file lies on.
        file.close()
    }
}
