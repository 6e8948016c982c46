package import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

/// The edge from a parent (a driver, or a backend) to a node. A parent does all of its I/O through its edges.
///
/// Every call checks the range, pads and splits to what the node can take, and emulates what it cannot do, so that drivers see only requests
/// they declared. Calls may come from any thread at once. The node at the other end and the permissions change only while no request is on
/// the edge: inside a drained section, or before the edge is in use.
package final class BlockChild: Sendable {
    /// As in QAPI: "file", "backing", "data-file"; "root" for a backend's.
    package let name: String
    package let role: ChildRole
    /// Changes only while drained (Docs/Concurrency.md).
    private let target: QuiescentReference<BlockNode>
    /// Numbers edges within a graph.
    package let id: Int
    /// What the node at the other end was called when it was opened because an image names it; nil when a user chose it.
    let expectedFilename: String?
    private let usedPermissions: Atomic<UInt8>

    private static let nextID = Atomic<Int>(1)

    /// Synchronous requests go down the backing files of at most this many layers: each costs some of the thread's stack.
    private static let synchronousLayers = 64

    init(name: String, role: ChildRole, node: BlockNode, expectedFilename: String? = nil) {
        self.name = name
        self.role = role
        target = QuiescentReference(node)
        self.expectedFilename = expectedFilename
        id = Self.nextID.add(1, ordering: .relaxed).oldValue
        usedPermissions = Atomic(0)
    }

    /// Points the edge to another node. Only inside a drained section.
    func retarget(to node: BlockNode) { target.replace(by: node) }

    /// The node at the other end.
    package var node: BlockNode { target.object }
    /// The same for a look that keeps nothing of it, as every synchronous request takes.
    @inline(__always)
    func withNode<R>(_ body: (BlockNode) -> R) -> R { target.borrow(body) }

    /// What the graph has granted to this parent.
    package var permissions: BlockPermissions { BlockPermissions(rawValue: usedPermissions.load(ordering: .relaxed)) }
    func grant(_ permissions: BlockPermissions) { usedPermissions.store(permissions.rawValue, ordering: .relaxed) }

    /// Whether a driver may pass a synchronous request on to its backing file: not while a very long chain lies below.
    package var takesSynchronousRequests: Bool { withNode { $0.height <= Self.synchronousLayers } }

    /// The size of the node in bytes.
    package var length: Int { withNode { $0.length } }

    /// Whether a synchronous request fits the node as it is: inside, and aligned.
    private func accepts(_ offset: GuestOffset, _ byteCount: Int, _ node: BlockNode) -> Bool {
        // The sign bit goes with the alignment bits: a negative offset is as unfit as a misaligned one.
        (offset.rawValue | byteCount) & ((node.requestAlignment &- 1) | .min) == 0 && offset.rawValue <= node.length &- byteCount
    }

    // MARK: Reading

    /// Reads without waiting for anything; false when that is not possible (or there is an error to report): use `read`.
    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        withNode { node in accepts(offset, target.byteCount, node) && node.driver.tryRead(target, at: offset) }
    }

    /// Reads `target.byteCount` bytes. What lies beyond the end of the node reads as zeroes.
    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags = []) async throws(BlockError) {
        if !flags.contains(.alreadyTried), tryRead(target, at: offset) { return }
        let node = node
        Trace.bdrvReadBegin(node: node.name, offset: offset.rawValue, bytes: target.byteCount)
        defer { Trace.bdrvReadEnd(node: node.name, offset: offset.rawValue, bytes: target.byteCount) }
        let inside = min(target.byteCount, max(0, node.length - offset.rawValue))
        if inside < target.byteCount { target.slice(at: inside, byteCount: target.byteCount - inside).zero() }
        if inside == 0 { return }
        try await ReadPipeline.read(node, target.slice(at: 0, byteCount: inside), at: offset, flags: flags)
    }

    // MARK: Writing

    /// Writes without waiting for anything; false when that is not possible: use `write`, which starts over.
    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags = []) -> Bool {
        withNode { node in
            // Looked at once, before the write: who adds a bitmap waits until such writes are over (`BlockGraph.addBitmap`).
            let isTracked = node.bitmaps.isTracking
            guard flags.isEmpty, permissions.contains(.write), accepts(offset, source.byteCount, node), !node.looksAtWrites,
                node.driver.tryWrite(source, at: offset, flags: flags)
            else { return false }
            node.statistics.wrote(upTo: offset.rawValue &+ source.byteCount)
            if isTracked { node.bitmaps.note(GuestRange(offset, byteCount: source.byteCount)) }
            return true
        }
    }

    /// Writes all of `source`. Writing beyond the end makes the node grow if this parent may resize it.
    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags = []) async throws(BlockError) {
        if source.byteCount == 0 { return }
        let node = node
        try checkWritable(GuestRange(offset, byteCount: source.byteCount), node)
        var holdsHeader = false
        defer { if holdsHeader { node.probedHeader.unlock() } }
        if node.looksAtWrites {
            if ProbedRawGuard.concerns(node, offset) {
                await node.probedHeader.lock()
                holdsHeader = true
                try await ProbedRawGuard.check(node, source, at: offset)
            }
            if node.options.detectZeroes != .off, source.isZero {
                var flags = flags
                if node.options.detectZeroes == .unmap, node.options.discardsUnmap { flags.insert(.mayUnmap) }
                defer { note(GuestRange(offset, byteCount: source.byteCount), flags, node) }
                try await WritePipeline.writeZeroes(node, GuestRange(offset, byteCount: source.byteCount), flags: flags.subtracting(.alreadyTried))
                return node.statistics.wrote(upTo: offset.rawValue + source.byteCount)
            }
        }
        if !flags.contains(.alreadyTried), tryWrite(source, at: offset, flags: flags) { return }
        defer { note(GuestRange(offset, byteCount: source.byteCount), flags, node) }
        Trace.bdrvWriteBegin(node: node.name, offset: offset.rawValue, bytes: source.byteCount, flags: UInt(flags.rawValue))
        defer { Trace.bdrvWriteEnd(node: node.name, offset: offset.rawValue, bytes: source.byteCount) }
        try await WritePipeline.write(node, source, at: offset, flags: flags)
        node.statistics.wrote(upTo: offset.rawValue + source.byteCount)
    }

    /// Makes the range read as zeroes.
    package func writeZeroes(_ range: GuestRange, flags: RequestFlags = []) async throws(BlockError) {
        if range.isEmpty { return }
        let node = node
        try checkWritable(range, node)
        let holdsHeader = node.looksAtWrites && ProbedRawGuard.concerns(node, range.start)
        if holdsHeader { await node.probedHeader.lock() }
        defer { if holdsHeader { node.probedHeader.unlock() } }
        if holdsHeader { try await ProbedRawGuard.checkZeroes(node, range) }
        defer { note(range, flags, node) }
        Trace.bdrvWriteZeroesBegin(node: node.name, offset: range.start.rawValue, bytes: range.byteCount, flags: UInt(flags.rawValue))
        defer { Trace.bdrvWriteZeroesEnd(node: node.name, offset: range.start.rawValue, bytes: range.byteCount) }
        try await WritePipeline.writeZeroes(node, range, flags: flags)
        node.statistics.wrote(upTo: range.end.rawValue)
    }

    /// Gives the space of the range back if the node's options and driver allow it; otherwise nothing happens.
    package func discard(_ range: GuestRange) async throws(BlockError) {
        let node = node
        if range.isEmpty || !node.options.discardsUnmap { return }
        try checkWritable(range, node)
        defer { if node.discarding != nil { node.noteWrite(range) } }
        Trace.bdrvDiscardBegin(node: node.name, offset: range.start.rawValue, bytes: range.byteCount)
        defer { Trace.bdrvDiscardEnd(node: node.name, offset: range.start.rawValue, bytes: range.byteCount) }
        try await WritePipeline.discard(node, range)
    }

    // MARK: Copying

    /// Copies a range of this node to another without moving the bytes through our memory.
    /// - Returns: `.unsupported` when that cannot be had for all of it. Some of it may be copied by then; write all of it in another way.
    package func copyRange(_ range: GuestRange, to target: BlockChild, at offset: GuestOffset, flags: RequestFlags = []) async throws(BlockError) -> Support {
        if range.isEmpty { return .done }
        Trace.bdrvCopyRangeBegin(
            node: node.name, offset: range.start.rawValue, bytes: range.byteCount, target: target.node.name, targetOffset: offset.rawValue)
        defer { Trace.bdrvCopyRangeEnd(node: node.name, offset: range.start.rawValue, bytes: range.byteCount) }
        try target.checkWritable(GuestRange(offset, byteCount: range.byteCount), target.node)
        // Both are asked before anything is done, so that a pair that can never do it costs nothing.
        if node.copyRanging == nil || !target.takesCopies(GuestRange(offset, byteCount: range.byteCount), flags) { return .unsupported }
        return try await copyRange(range, to: CopyDestination(target, at: offset, flags: flags))
    }

    /// The source's side, for drivers that pass a copy on to their child.
    package func copyRange(_ range: GuestRange, to destination: CopyDestination) async throws(BlockError) -> Support {
        let node = node
        // Beyond the end there are zeroes to a reader, and nothing to copy.
        guard let driver = node.copyRanging, range.end.rawValue <= node.length else { return .unsupported }
        return try await driver.copyRange(range, to: destination)
    }

    /// The destination's side: a write whose data are in a host file.
    package func copyRange(from source: HostFileSpan, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) -> Support {
        let node = node
        let range = GuestRange(offset, byteCount: source.byteCount)
        try checkWritable(range, node)
        guard takesCopies(range, flags), let driver = node.copyRanging else { return .unsupported }
        defer { note(range, flags, node) }
        let outcome = try await WritePipeline.copy(node, driver, source, at: offset, flags: flags)
        node.statistics.wrote(upTo: range.end.rawValue)
        return outcome
    }

    /// Whether a write of that range could be a copy: not where somebody wants to see the bytes, or units would have to be filled up.
    private func takesCopies(_ range: GuestRange, _ flags: RequestFlags) -> Bool {
        let node = node
        return node.copyRanging != nil && !flags.contains(.compressed) && !node.looksAtData && range.isAligned(to: node.requestAlignment)
    }

    /// Tells the node's dirty bitmaps of a write that is over, whether it has succeeded or not, unless it leaves the data as it was.
    private func note(_ range: GuestRange, _ flags: RequestFlags, _ node: BlockNode) {
        if !flags.contains(.writeUnchanged) { node.noteWrite(range) }
    }

    private func checkWritable(_ range: GuestRange, _ node: BlockNode) throws(BlockError) {
        if node.isReadOnly { throw node.readOnlyError }
        guard !permissions.isDisjoint(with: [.write, .writeUnchanged]) else {
            throw BlockError(.permissionConflict, "the '\(name)' edge to block node '\(node.name)' was not granted permission to write")
        }
        if range.end.rawValue > node.length, !permissions.contains(.resize) {
            throw BlockError(.invalidArgument, "a write of \(range.byteCount) bytes at offset \(range.start.rawValue) ends beyond the \(node.length) bytes of block node '\(node.name)'")
        }
        // Every kind of write comes through here.
        if node.looksAtWrites { node.threshold.note(writeUpTo: range.end.rawValue) }
    }

    // MARK: The rest

    /// Everything acknowledged before the call is on stable storage after it.
    package func flush() async throws(BlockError) {
        let node = node
        if node.options.ignoresFlushes { return }
        Trace.bdrvFlushBegin(node: node.name)
        defer { Trace.bdrvFlushEnd(node: node.name) }
        try await node.flushing?.flush()
    }

    /// Advice that a flush will follow, so that it has less to wait for. Returns at once.
    package func startWriteback() {
        withNode { if !$0.options.ignoresFlushes { $0.flushing?.startWriteback() } }
    }

    /// Changes the size.
    package func resize(to byteCount: Int, exact: Bool = true, preallocation: PreallocMode = .off) async throws(BlockError) {
        let node = node
        if node.isReadOnly { throw node.readOnlyError }
        guard permissions.contains(.resize) else {
            throw BlockError(.permissionConflict, "the '\(name)' edge to block node '\(node.name)' was not granted permission to resize")
        }
        guard let resizing = node.resizing else { throw BlockError(.unsupported, "Image format driver does not support resize") }
        try BlockLimits.check(newLength: byteCount)
        Trace.bdrvResize(node: node.name, bytes: byteCount)
        defer { node.bitmaps.noteSize(node.length) }
        try await resizing.resize(to: byteCount, exact: exact, preallocation: preallocation)
    }

    /// What this node itself knows about the beginning of the range. `precise` finds zeroes although it costs time.
    /// - Precondition: the range is not empty and lies inside the node.
    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        try await BlockStatusPipeline.status(node, range, precise: precise)
    }

    package func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus? {
        withNode { $0.statusReporting?.tryBlockStatus(of: range, precise: precise) }
    }

    /// Where the range lies in a host file, if it does in one piece. Valid for the current turn only.
    package func hostFileRange(of range: GuestRange) -> HostFileRange? {
        let node = node
        guard range.end.rawValue <= node.length else { return nil }
        return node.hostFileBacked?.hostFileRange(of: range)
    }
}
