package import BlockGraph
package import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

/// A disk stored as it is (`driver=raw`): the file itself, or a window of it given by `offset` and `size`.
package final class RawDriver: BlockDriver, Flushing, ZeroWriting, Discarding, Resizing, StatusReporting, HostFileBacked, CopyRanging, ImageDescribing, Reopening,
    @unchecked Sendable  // unchecked: `candidate` is only touched by reopening, one at a time
{
    package static let formatName = "raw"
    package static let kind = DriverKind.format

    private let file: BlockChild
    // The window, each part by itself: every request asks for one of them, and a load is all that it pays.
    private let windowStart: Atomic<Int>
    /// -1: the window goes on to the end of the file.
    private let windowSize: Atomic<Int>
    private let isWindowGiven: Atomic<Bool>
    /// The window that a reopen prepares.
    private var candidate: Window?
    private var start: Int { windowStart.load(ordering: .relaxed) }
    private var fixedSize: Int? {
        let size = windowSize.load(ordering: .relaxed)
        return size < 0 ? nil : size
    }

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .raw(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'raw'") }
        let hasWindow = own.offset != nil || own.size != nil
        // Without a window every request reaches the file unchanged, as through a filter: others may then share what we share.
        let file = try await opener.openChild(own.file, as: "file", role: hasWindow ? [.data, .primary] : [.filtered, .primary])
        return try RawDriver(file, offset: own.offset, size: own.size)
    }

    private init(_ file: BlockChild, offset: Int?, size: Int?) throws(BlockError) {
        self.file = file
        let window = try Window(offset: offset, size: size, fileLength: file.length)
        windowStart = Atomic(window.start)
        windowSize = Atomic(window.fixedSize ?? -1)
        isWindowGiven = Atomic(window.isGiven)
    }

    /// The part of the file that is the disk.
    private struct Window {
        /// Where it begins in the file, in bytes.
        var start: Int
        /// Its size in bytes, when the options fix it.
        var fixedSize: Int?
        /// Whether the options speak of a window at all; without one every request reaches the file unchanged, as through a filter.
        var isGiven: Bool

        init(offset: Int?, size: Int?, fileLength: Int) throws(BlockError) {
            let start = offset ?? 0
            guard start >= 0 else { throw BlockError(.invalidArgument, "Value '\(start)' is out of range for parameter 'offset'") }
            if let size, size < 0 { throw BlockError(.invalidArgument, "Value '\(size)' is out of range for parameter 'size'") }
            guard start <= fileLength else {
                throw BlockError(.invalidArgument, "Offset (\(start)) cannot be greater than size of the containing file (\(fileLength))")
            }
            if let size, size > fileLength - start {
                throw BlockError(
                    .invalidArgument, "The sum of offset (\(start)) and size (\(size)) has to be smaller or equal to the actual size of the containing file (\(fileLength))")
            }
            if let size, !size.isAligned(to: 512) { throw BlockError(.invalidArgument, "Specified size is not multiple of 512") }
            self.start = start
            fixedSize = size
            isGiven = offset != nil || size != nil
            Trace.rawWindow(offset: start, length: size ?? -1)
        }
    }

    /// Those of the file, whichever that is now. A window that begins or ends between two of the file's units cannot promise them: the file's own
    /// edge pads such requests. So it does where the file listens for fault points, which padding is among.
    package var limits: BlockLimits {
        let limits = file.node.limits
        return (start | (fixedSize ?? 0)).isAligned(to: limits.requestAlignment) && !file.observesFaultPoints ? limits : BlockLimits()
    }

    /// A window that goes on to the end of the file has whole sectors, even where the last one is not all there: its rest reads as zeroes.
    package var length: Int {
        if let fixedSize { return fixedSize }
        return start == 0 ? file.length : max(0, file.length - start).roundedUp(to: 512)
    }
    package var children: [BlockChild] { [file] }
    package var supportedWriteFlags: RequestFlags { file.node.driver.supportedWriteFlags.subtracting(.compressed) }

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        !file.observesFaultPoints && file.tryRead(target, at: offset + start)
    }

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        Trace.rawRequest(operation: "read", offset: offset.rawValue, bytes: target.byteCount, fileOffset: offset.rawValue + start)
        file.reached(.readAio)
        try await file.read(target, at: offset + start, flags: flags)
    }

    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        !file.observesFaultPoints && file.tryWrite(source, at: offset + start, flags: flags)
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        Trace.rawRequest(operation: "write", offset: offset.rawValue, bytes: source.byteCount, fileOffset: offset.rawValue + start)
        file.reached(.writeAio)
        try await file.write(source, at: offset + start, flags: flags)
    }

    package func flush() async throws(BlockError) {
        file.reached(.flushToDisk)
        try await file.flush()
    }

    package func startWriteback() { file.startWriteback() }

    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        Trace.rawRequest(operation: "zeroes", offset: range.start.rawValue, bytes: range.byteCount, fileOffset: range.start.rawValue + start)
        try await file.writeZeroes(shifted(range), flags: flags)
        return .done
    }

    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        Trace.rawRequest(operation: "discard", offset: range.start.rawValue, bytes: range.byteCount, fileOffset: range.start.rawValue + start)
        try await file.discard(shifted(range))
        return .done
    }

    package func copyRange(_ range: GuestRange, to destination: CopyDestination) async throws(BlockError) -> Support {
        try await file.copyRange(shifted(range), to: destination)
    }

    package func copyRange(from source: HostFileSpan, to offset: GuestOffset, flags: RequestFlags) async throws(BlockError) -> Support {
        try await file.copyRange(from: source, at: offset + start, flags: flags)
    }

    package func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        if fixedSize != nil { throw BlockError(.unsupported, "Cannot resize fixed-size raw disks") }
        let (total, overflow) = byteCount.addingReportingOverflow(start)
        if overflow { throw BlockError(.tooLarge, "\(byteCount) bytes are more than a disk can have") }
        try await file.resize(to: total, exact: exact, preallocation: preallocation)
    }

    package func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus? {
        let below = inside(range)
        return below.isEmpty ? beyondTheFile(range) : file.tryBlockStatus(of: below, precise: precise).map { mapped($0, range) }
    }

    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        let below = inside(range)
        return below.isEmpty ? beyondTheFile(range) : mapped(try await file.blockStatus(of: below, precise: precise), range)
    }

    /// The part of the range that the file has, as the file sees it.
    private func inside(_ range: GuestRange) -> GuestRange {
        let shifted = shifted(range)
        return GuestRange(shifted.start, byteCount: max(0, min(shifted.byteCount, file.length - shifted.start.rawValue)))
    }

    private func beyondTheFile(_ range: GuestRange) -> BlockStatus { BlockStatus(byteCount: range.byteCount, flags: [.zero, .allocated]) }

    /// Everything lies in the file at the same place, and what the file knows of it holds here too: its holes are holes of the disk.
    private func mapped(_ status: BlockStatus, _ range: GuestRange) -> BlockStatus {
        BlockStatus(
            byteCount: status.byteCount, flags: status.flags.union([.allocated, .offsetValid]).subtracting([.endOfFile, .recurse]),
            offset: (range.start + start).asHost, file: file)
    }

    package func hostFileRange(of range: GuestRange) -> HostFileRange? { file.hostFileRange(of: shifted(range)) }

    private func shifted(_ range: GuestRange) -> GuestRange { GuestRange(range.start + start, byteCount: range.byteCount) }

    package func describeImage() async throws(BlockError) -> ImageDescription { ImageDescription() }

    // MARK: Reopening

    /// A raw node without a window is like a filter, one with a window like a format that lets nobody else resize its file. But it needs to write, and
    /// to resize, only where its parents do: several windows of one file can be written to at a time.
    package func permissions(for role: ChildRole, parents: PermissionGrant, isReadOnly: Bool) -> PermissionGrant {
        guard candidate?.isGiven ?? isWindowGiven.load(ordering: .relaxed) else {
            return DefaultPermissions.grant(kind: Self.kind, role: [.filtered, .primary], parents: parents, isReadOnly: isReadOnly)
        }
        var grant = DefaultPermissions.grant(kind: Self.kind, role: [.data, .primary], parents: parents, isReadOnly: isReadOnly)
        grant.used = parents.used
        return grant
    }

    package static let changeableOptions: Set<String> = ["offset", "size"]

    package func stageReopen(_ request: ReopenRequest) throws(BlockError) {
        guard case .raw(let own) = request.options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'raw'") }
        candidate = try Window(offset: own.offset, size: own.size, fileLength: (request.replaced["file"] ?? file).length)
    }

    package func commitReopen() async {
        if let candidate {
            windowStart.store(candidate.start, ordering: .relaxed)
            windowSize.store(candidate.fixedSize ?? -1, ordering: .relaxed)
            isWindowGiven.store(candidate.isGiven, ordering: .relaxed)
        }
        candidate = nil
    }

    package func abortReopen() async { candidate = nil }
}

extension RawDriver {
    /// How much room a raw image of a disk of `byteCount` bytes takes: what the disk has, in whole sectors.
    package static func measure(byteCount: Int) -> ImageMeasure {
        let size = byteCount.roundedUp(to: 512)
        return ImageMeasure(required: size, fullyAllocated: size)
    }
}
