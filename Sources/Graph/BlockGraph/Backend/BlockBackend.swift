import Glibc
package import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

/// Where requests enter a graph: the edge that an export, a tool or a job holds to the root of its tree.
///
/// It keeps requests out while the nodes below change. A request that is answered at once runs inside one turn of its I/O context and is not
/// counted; one that suspends is. A drained section closes the gate, waits for a turn boundary of every context and then for the count to
/// reach zero (Docs/Concurrency.md).
///
/// The `try` calls are for code on an I/O context. The async ones may be called from any task.
package final class BlockBackend: Sendable {
    /// For messages: the export's id, the job's id.
    package let name: String
    /// The edge to the root node.
    package let root: BlockChild
    /// The holder can live with an inactive node, whose requests fail.
    package let allowsInactive: Bool
    /// The id under which statistics show this backend; nil for those that nobody asks about.
    package let device: String?
    package let accounting = BackendAccounting()
    let gate = RequestGate()
    /// Whether requests may enter and the node serves them.
    private var isServing: Bool { gate.isOpen && root.withNode { $0.isActive } }
    private let placement = Mutex(Placement.anywhere)
    private let rootName: Mutex<String>

    init(name: String, device: String? = nil, root: BlockChild, allowsInactive: Bool = false) {
        self.name = name
        self.device = device
        self.allowsInactive = allowsInactive
        self.root = root
        rootName = Mutex(root.node.name)
    }

    package var node: BlockNode { root.node }
    /// The name of the root node, for any thread at any time.
    package var nodeName: String { rootName.withLock { $0 } }
    /// Called by the graph when the root edge leads elsewhere.
    func noteRoot(named name: String) { rootName.withLock { $0 = name } }

    /// The size in bytes.
    package var length: Int { root.length }
    package var isWritable: Bool { root.permissions.contains(.write) }

    // MARK: Requests that are answered at once (on an I/O context)

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        let start = TickClock.now
        let isDone = isServing && root.tryRead(target, at: offset)
        if isDone { accounting.finished(.read, byteCount: target.byteCount, since: start) }
        Trace.blkTryRead(backend: name, offset: offset.rawValue, bytes: target.byteCount, done: isDone)
        return isDone
    }

    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags = []) -> Bool {
        let start = TickClock.now
        let isDone = isServing && root.tryWrite(source, at: offset, flags: flags)
        if isDone { accounting.finished(.write, byteCount: source.byteCount, since: start) }
        Trace.blkTryWrite(backend: name, offset: offset.rawValue, bytes: source.byteCount, done: isDone)
        return isDone
    }

    /// Writes a part of a request that comes piece by piece.
    /// - Parameter total: with the last piece the size of the whole request, which is counted then.
    package func tryWritePiece(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags = [], endOf total: Int? = nil) -> Bool {
        let start = TickClock.now
        let isDone = isServing && root.tryWrite(source, at: offset, flags: flags)
        if isDone, let total { accounting.finished(.write, byteCount: total, since: start) }
        Trace.blkTryWrite(backend: name, offset: offset.rawValue, bytes: source.byteCount, done: isDone)
        return isDone
    }

    package func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus? {
        isServing ? root.tryBlockStatus(of: range, precise: precise) : nil
    }

    /// Where the range lies in a host file; valid until the end of the current turn.
    package func hostFileRange(of range: GuestRange) -> HostFileRange? {
        isServing ? root.hostFileRange(of: range) : nil
    }

    // MARK: Requests that may take time

    /// - Throws: `.invalidArgument` for a range outside the node; else what the driver reports.
    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags = []) async throws(BlockError) {
        let trace = TracedRequest.begin("read", name, GuestRange(offset, byteCount: target.byteCount))
        defer { trace.end() }
        await gate.enter()
        defer { gate.leave() }
        trace.enter()
        try checkActive()
        try check(GuestRange(offset, byteCount: target.byteCount), .read)
        let start = TickClock.now
        do throws(BlockError) { try await root.read(target, at: offset, flags: flags) } catch { throw note(error, .read, start) }
        accounting.finished(.read, byteCount: target.byteCount, since: start)
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags = []) async throws(BlockError) {
        let trace = TracedRequest.begin("write", name, GuestRange(offset, byteCount: source.byteCount))
        defer { trace.end() }
        await gate.enter()
        defer { gate.leave() }
        trace.enter()
        try checkActive()
        if !root.permissions.contains(.resize) { try check(GuestRange(offset, byteCount: source.byteCount), .write) }
        let start = TickClock.now
        do throws(BlockError) { try await root.write(source, at: offset, flags: flags) } catch { throw note(error, .write, start) }
        accounting.finished(.write, byteCount: source.byteCount, since: start)
    }

    package func writeZeroes(_ range: GuestRange, flags: RequestFlags = []) async throws(BlockError) {
        let trace = TracedRequest.begin("writeZeroes", name, range)
        defer { trace.end() }
        await gate.enter()
        defer { gate.leave() }
        trace.enter()
        try checkActive()
        if !root.permissions.contains(.resize) { try check(range, .write) }
        let start = TickClock.now
        do throws(BlockError) { try await root.writeZeroes(range, flags: flags) } catch { throw note(error, .write, start) }
        accounting.finished(.write, byteCount: range.byteCount, since: start)
    }

    package func discard(_ range: GuestRange) async throws(BlockError) {
        let trace = TracedRequest.begin("discard", name, range)
        defer { trace.end() }
        await gate.enter()
        defer { gate.leave() }
        trace.enter()
        try checkActive()
        try check(range, .unmap)
        let start = TickClock.now
        do throws(BlockError) { try await root.discard(range) } catch { throw note(error, .unmap, start) }
        accounting.finished(.unmap, byteCount: range.byteCount, since: start)
    }

    package func flush() async throws(BlockError) {
        let trace = TracedRequest.begin("flush", name, GuestRange(GuestOffset(0), byteCount: 0))
        defer { trace.end() }
        await gate.enter()
        defer { gate.leave() }
        trace.enter()
        try checkActive()
        let start = TickClock.now
        do throws(BlockError) { try await root.flush() } catch { throw note(error, .flush, start) }
        accounting.finished(.flush, byteCount: 0, since: start)
    }

    private func note(_ error: BlockError, _ operation: AccountedOperation, _ start: UInt64) -> BlockError {
        accounting.failed(operation, since: start)
        return error
    }

    package func resize(to byteCount: Int, exact: Bool = true, preallocation: PreallocMode = .off) async throws(BlockError) {
        let trace = TracedRequest.begin("resize", name, GuestRange(GuestOffset(0), byteCount: byteCount))
        defer { trace.end() }
        await gate.enter()
        defer { gate.leave() }
        trace.enter()
        try checkActive()
        try await root.resize(to: byteCount, exact: exact, preallocation: preallocation)
    }

    /// Copies a range to another backend (or elsewhere in this one) without moving the bytes through our memory.
    /// - Returns: `.unsupported` when that cannot be had for all of it: then all of it has to be read and written. See `CopyRanging`.
    /// - Throws: what a write would throw; `.invalidArgument` for a range outside of either node.
    package func copyRange(_ range: GuestRange, to target: BlockBackend, at offset: GuestOffset, flags: RequestFlags = []) async throws(BlockError) -> Support {
        let trace = TracedRequest.begin("copyRange", name, range)
        defer { trace.end() }
        await RequestGate.enter(gate, target.gate)
        defer {
            gate.leave()
            target.gate.leave()
        }
        trace.enter()
        try checkActive()
        try target.checkActive()
        try check(range, nil)
        if !target.root.permissions.contains(.resize) { try target.check(GuestRange(offset, byteCount: range.byteCount), nil) }
        return try await root.copyRange(range, to: target.root, at: offset, flags: flags)
    }

    /// What a reader finds at the beginning of the range, looking through backing files.
    /// - Returns: the status; its `byteCount` is at least 1. `depth` counts the layers above the one that decides.
    package func blockStatus(of range: GuestRange, precise: Bool = true) async throws(BlockError) -> (status: BlockStatus, depth: Int, node: BlockNode) {
        let trace = TracedRequest.begin("blockStatus", name, range)
        defer { trace.end() }
        await gate.enter()
        defer { gate.leave() }
        trace.enter()
        try checkActive()
        try check(range, nil)
        return try await BlockStatusPipeline.statusThroughChain(root.node, range, precise: precise)
    }

    func checkActive() throws(BlockError) {
        if !root.withNode({ $0.isActive }) { throw BlockError(errno: EPERM, "Block node '\(node.name)' is inactive") }
    }

    private func check(_ range: GuestRange, _ operation: AccountedOperation?) throws(BlockError) {
        let (end, overflow) = range.start.rawValue.addingReportingOverflow(range.byteCount)
        guard !overflow, range.start.rawValue >= 0, range.byteCount >= 0, end <= length else {
            if let operation { accounting.refused(operation) }
            throw BlockError(.invalidArgument, "a request for \(range.byteCount) bytes at offset \(range.start.rawValue) is outside the \(length) bytes of block node '\(node.name)'")
        }
    }

    // MARK: I/O threads

    /// What happens to whoever uses the backend when its node moves to another I/O thread.
    package enum Placement: Sendable {
        /// Nothing: requests run wherever they are made.
        case anywhere
        /// Its owner is told, and serves on that context from then on.
        case follows(@Sendable (IOContext) -> Void)
        /// It must not move.
        case fixed
    }

    package func setPlacement(_ placement: Placement) { self.placement.withLock { $0 = placement } }

    var isFixed: Bool { placement.withLock { if case .fixed = $0 { true } else { false } } }

    func move(to context: IOContext) {
        if case .follows(let follow) = placement.withLock({ $0 }) { follow(context) }
    }

    // MARK: Draining (called by the graph)

    /// Whether requests may enter.
    package var isOpen: Bool { gate.isOpen }

    func closeGate() { gate.close() }
    func openGate() { gate.open() }
    func waitUntilIdle() async { await gate.waitUntilIdle() }
}
