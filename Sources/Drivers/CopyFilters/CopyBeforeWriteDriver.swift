package import BlockCopy
import BlockFilters
package import BlockGraph
package import IOCore
import Synchronization
package import StorageSchema
package import StrataBase

/// Copies what a disk holds to a target before it is written over (`driver=copy-before-write`), so that the disk as it was when the filter came is kept:
/// in the target where it has changed since, in the disk itself elsewhere. `snapshot-access` shows it, backup jobs copy it.
///
/// A write waits for the copy of the clusters that it touches, and for readers of the kept state who are reading them from the disk. Nobody else may write
/// to the disk below the filter.
package final class CopyBeforeWriteDriver: FilterDriver, Draining, @unchecked Sendable {
    // unchecked: `plan` changes only while no request is on the node (Docs/Concurrency.md)
    package static let formatName = "copy-before-write"

    package let file: BlockChild
    package let target: BlockChild
    package var children: [BlockChild] { [file, target] }
    /// What is still to be copied.
    package let work: ClusterWork
    /// How it is copied.
    package private(set) var plan: Plan
    /// What copies for guests.
    private var guestCopier: BlockCopier
    let keeper: SnapshotKeeper
    private let errorAction: OnCbwError
    /// How long a write waits for its copy; nil is for ever.
    private let timeout: Duration?
    /// The job that the filter is for is over: it needs nothing any more.
    private let isStopped = Atomic<Bool>(false)
    /// Copies that go on although the guest's request that began them has not waited for them.
    private let detached = InFlightCounter()

    /// How what is kept is copied. A backup job has wishes of its own.
    package struct Plan: Sendable {
        package var settings = CopySettings()
        /// Told of bytes that were copied for guests.
        package var copied: (@Sendable (Int) -> Void)?
    }

    /// The most that one request of a guest copies at once, in bytes; a whole cluster at least.
    private static let longestCopy = 1 << 20

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .copyBeforeWrite(let own) = options.branch else {
            throw BlockError(.invalidArgument, "options of another driver were given to 'copy-before-write'")
        }
        let file = try await opener.openChild(own.file, as: "file", role: [.filtered, .primary])
        let target = try await opener.openChild(own.target, as: "target", role: .data)
        var bitmap: HierarchicalBitmap?
        if let named = own.bitmap {
            guard let node = opener.node(named: named.node) else { throw BlockError(.notFound, "Node '\(named.node)' not found") }
            guard let found = node.bitmaps.bitmap(named: named.name) else { throw BlockError(.notFound, "Dirty bitmap '\(named.name)' not found") }
            bitmap = found.bits
        }
        return try await CopyBeforeWriteDriver(own, file, target, bitmap)
    }

    private init(_ options: BlockdevOptionsCbw, _ file: BlockChild, _ target: BlockChild, _ bitmap: HierarchicalBitmap?) async throws(BlockError) {
        let clusterSize = try await CopyGeometry.clusterSize(of: target.node, atLeast: options.minClusterSize)
        let byteCount = file.length
        if let bitmap, bitmap.byteCount != byteCount {
            throw BlockError(.invalidArgument, "The bitmap is for \(bitmap.byteCount) bytes and not for the \(byteCount) bytes of node '\(file.node.name)'")
        }
        work = try ClusterWork(byteCount: byteCount, clusterSize: clusterSize, longestPiece: Self.longestCopy)
        keeper = try SnapshotKeeper(byteCount: byteCount, clusterSize: clusterSize)
        if let bitmap { work.mark(as: bitmap) } else { work.markAll() }
        keeper.allow(bitmap)
        self.file = file
        self.target = target
        errorAction = options.onCbwError ?? .breakGuestWrite
        timeout = options.cbwTimeout.flatMap { $0 == 0 ? nil : .seconds(Int64($0)) }
        var plan = Plan()
        plan.settings.pieceSize = max(clusterSize, Self.longestCopy)
        // What shows through from below the target may be the disk itself, which is about to change.
        plan.settings.asksTarget = !CopyGeometry.hasBacking(target.node)
        self.plan = plan
        guestCopier = BlockCopier(ChainSource(file, length: byteCount), to: target, work: work, plan.settings)
    }

    /// Takes over how to copy. Only while no request is on the node, or before anybody uses it.
    package func configure(_ plan: Plan) {
        self.plan = plan
        guestCopier = copier()
    }

    /// It is about to go, and asks for no more than its parents. Permissions follow when the graph changes next.
    package func stop() { isStopped.store(true, ordering: .sequentiallyConsistent) }

    /// From now on what `bitmap` has marked is kept, and nothing else. Only while no request is on the node. A bitmap of another size keeps everything.
    package func keep(_ bitmap: HierarchicalBitmap) {
        guard bitmap.byteCount == work.byteCount else { return }
        work.mark(as: bitmap)
        keeper.allow(bitmap)
    }

    /// What workers copy with, through the filter's own edges. They are inside the gates of a backend above the filter.
    package func copier(gates: [BlockBackend] = [], delegate: any CopyDelegate = Unwatched()) -> BlockCopier {
        BlockCopier(
            ChainSource(file, length: work.byteCount), to: target, work: work, plan.settings, gates: gates, delegate: delegate)
    }

    /// Why the kept state is lost; nil while it is not.
    package var snapshotError: BlockError? { keeper.failure }

    // MARK: The graph

    package func permissions(for role: ChildRole, parents: PermissionGrant, isReadOnly: Bool) -> PermissionGrant {
        if role.contains(.data) { return PermissionGrant(used: isReadOnly ? [] : .write, shared: .all.subtracting(.resize)) }
        if isStopped.load(ordering: .sequentiallyConsistent) { return parents }
        var grant = parents
        if plan.settings.discardsSource { grant.used.insert(.write) }
        // A filter that nobody uses keeps nothing, and is nobody's rival.
        if parents.used.isEmpty && parents.shared == .all && !plan.settings.discardsSource { return grant }
        grant.used.insert(.consistentRead)
        grant.shared.subtract([.write, .resize])
        return grant
    }

    /// The point in time is that of these children.
    package func stageReopen(_ request: ReopenRequest) throws(BlockError) {
        if let name = request.replaced.keys.sorted().first {
            throw BlockError(.unsupported, "Cannot change the '\(name)' child of a node of driver 'copy-before-write'")
        }
    }

    package func beginDrain() {}
    package func endDrain() {}
    package func waitForOwnRequests() async { await detached.waitUntilIdle() }
    package func close() async throws(BlockError) { await detached.waitUntilIdle() }

    // MARK: Writing: not before the copy

    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        guard keeper.isDone(work.clusters(around: GuestRange(offset, byteCount: source.byteCount))) else { return false }
        return file.tryWrite(source, at: offset, flags: flags)
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        if !flags.contains(.writeUnchanged) { try await prepareWrite(GuestRange(offset, byteCount: source.byteCount)) }
        try await file.write(source, at: offset, flags: flags)
    }

    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        if !flags.contains(.writeUnchanged) { try await prepareWrite(range) }
        try await file.writeZeroes(range, flags: flags)
        return .done
    }

    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        try await prepareWrite(range)
        try await file.discard(range)
        return .done
    }

    package func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        if byteCount < work.byteCount { try await prepareWrite(GuestRange(GuestOffset(byteCount), byteCount: work.byteCount - byteCount)) }
        try await file.resize(to: byteCount, exact: exact, preallocation: preallocation)
    }

    /// Sees to it that the range may change: copies what is to be kept of it, and lets readers of the kept state finish.
    private func prepareWrite(_ range: GuestRange) async throws(BlockError) {
        let clusters = work.clusters(around: range)
        if clusters.isEmpty || keeper.isDone(clusters) { return }
        Trace.cbwGuestWriteBegin(offset: clusters.start.rawValue, bytes: clusters.byteCount)
        defer { Trace.cbwGuestWriteEnd(offset: clusters.start.rawValue, bytes: clusters.byteCount) }
        do throws(BlockError) {
            if keeper.failure == nil { try await copyInTime(clusters) }
            await keeper.finish(clusters)
        } catch {
            if errorAction == .breakGuestWrite { throw error.during("copying before a write") }
            Trace.cbwSnapshotLost(offset: clusters.start.rawValue, reason: error.description)
            await keeper.giveUp(error, clusters)
        }
    }

    private func copyInTime(_ clusters: GuestRange) async throws(BlockError) {
        guard let timeout else { return try await copy(clusters) }
        let outcome = AsyncCondition<Result<Void, BlockError>?>(nil)
        detached.enter()
        let context = IOContext.current
        let copying: @Sendable () async -> Void = { [self] in
            let result: Result<Void, BlockError>
            do throws(BlockError) { result = .success(try await copy(clusters)) } catch { result = .failure(error) }
            outcome.update { $0 = $0 ?? result }
            detached.leave()
        }
        if let context { context.spawn(copying) } else { Task { await copying() } }
        let timer = context?.schedule(after: timeout) {
            outcome.update { $0 = $0 ?? .failure(BlockError(.timedOut, "copying before a write has taken more than \(timeout.components.seconds) s")) }
        }
        let result = await outcome.wait { $0 }
        timer?.cancel()
        try result.get()
    }

    /// Copies what is marked of whole clusters, and waits for what others are copying of them.
    private func copy(_ clusters: GuestRange) async throws(BlockError) {
        var buffer: IOBuffer?
        while case .piece(let piece) = await work.claim(in: clusters, longestPiece: max(work.clusterSize, Self.longestCopy)) {
            do throws(CopyFailure) {
                _ = try await guestCopier.copy(piece, &buffer)
                work.finish(piece, succeeded: true)
                plan.copied?(piece.range.count)
            } catch {
                work.finish(piece, succeeded: false)
                throw error.error
            }
        }
    }
}
