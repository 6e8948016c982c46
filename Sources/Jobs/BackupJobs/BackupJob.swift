import BlockCopy
package import BlockGraph
import CopyFilters
import IOCore
package import JobCore
package import StorageSchema
package import StrataBase
import Synchronization

/// Copies a disk as it is when the job is made, while guests write on (blockdev-backup): a `copy-before-write` filter goes on top of the disk, keeps what
/// is written over, and the job copies the rest through it.
package final class BackupJob: JobDriver {
    package static var type: JobType { .backup }

    private let graph: BlockGraph
    private let filterName: String
    private let filter: CopyBeforeWriteDriver
    /// The door through which the job's requests are known to the graph: above the filter, and so above source and target.
    private let door: BlockBackend
    /// Says in queries and conflicts that the target is the job's.
    private let targetHold: BlockBackend
    private let blockers: [OperationBlocker.ID]
    private let bitmap: DirtyBitmap?
    private let options: BackupOptions
    /// Until then nothing was copied, and nothing need be copied because of this job.
    private let hasBegun = Atomic<Bool>(false)

    /// Bytes that are read and written at once: what two workers move stays in the processor's cache.
    private static let pieceSize = 256 << 10
    /// More pieces at once bring nothing; each has a buffer.
    private static let mostWorkers = 16

    /// How long the job rests after a failure that is ignored.
    private static let restAfterFailure = Duration.milliseconds(20)

    /// Puts the filter on top of the source. No request is on the source meanwhile: what it holds now is what is copied.
    /// - Parameter options: settled.
    /// - Throws: `.notFound`, `.permissionConflict`, `.invalidArgument`; the graph is then as before.
    package static func make(_ options: BackupOptions, _ job: Job, in graph: BlockGraph) async throws(BlockError) -> BackupJob {
        try await graph.change { change async throws(BlockError) -> BackupJob in
            let (source, target, bitmap) = try check(options, change)
            let own = BlockdevOptionsCbw(
                file: .reference(options.source), target: .reference(options.target), minClusterSize: options.minClusterSize)
            let node: BlockNode
            do throws(BlockError) {
                node = try await change.insertFilter(
                    BlockdevOptions(.copyBeforeWrite(own), nodeName: options.filterNodeName, discard: source.node.options.discardsUnmap ? .unmap : nil),
                    above: options.source, isMonitorOwned: false)
            } catch { throw error.during("Could not create node") }
            guard let filter = node.driver as? CopyBeforeWriteDriver else { preconditionFailure("the filter has just been made") }
            try configure(filter, options, target.node, job)
            // A reader, so that the filter is not taken for one that nobody uses: what the disk was must not be written over below it.
            let door = change.makeBackend(named: job.holderName, on: node, PermissionGrant(used: .consistentRead, shared: .all))
            let targetHold = change.makeBackend(named: job.holderName, on: target.node, PermissionGrant(used: [], shared: .all))
            let blockers = [node.name, options.target].map { name in
                let blocker = OperationBlocker.job(reason: job.blockReason, isToldFirst: true)
                change.addBlocker(blocker, to: name)
                return blocker.id
            }
            if let bitmap { change.add(Freeze(bitmap, into: options.copiesBitmap ? filter : nil)) }
            return BackupJob(graph, node.name, filter, door, targetHold, blockers, bitmap, options)
        }
    }

    /// Whether the nodes are as a backup needs them. It is said before anything else that is wrong with the job.
    /// - Throws: as `make`.
    package static func check(_ options: BackupOptions, in graph: BlockGraph) async throws(BlockError) {
        try await graph.change { change throws(BlockError) in _ = try check(options, change) }
    }

    private static func check(
        _ options: BackupOptions, _ change: GraphChange
    ) throws(BlockError) -> (source: GraphState.NodeRecord, target: GraphState.NodeRecord, bitmap: DirtyBitmap?) {
        let (source, target) = (try change.record(options.source), try change.record(options.target))
        let bitmap = try bitmap(options, of: source.node)
        if options.source == options.target { throw BlockError(.invalidArgument, "Source and target cannot be the same") }
        if options.compresses, target.node.compressionUnit == nil {
            throw BlockError(.unsupported, "Compression is not supported for this drive \(target.node.filename ?? "")")
        }
        try change.state.checkNotBlocked(.jobSource, on: options.source)
        try change.state.checkNotBlocked(.backupTarget, on: options.target)
        try options.checkNumbers()
        guard source.node.length == target.node.length else {
            throw BlockError(.invalidArgument, "Source and target image have different sizes")
        }
        return (source, target, bitmap)
    }

    private static func bitmap(_ options: BackupOptions, of node: BlockNode) throws(BlockError) -> DirtyBitmap? {
        guard let name = options.bitmap else { return nil }
        guard let bitmap = node.bitmaps.bitmap(named: name) else { throw BlockError(.notFound, "Bitmap '\(name)' could not be found") }
        try options.checkBitmapMode()
        try bitmap.check(options.bitmapMode == .never ? .forReading : .all)
        return bitmap
    }

    private static func configure(_ filter: CopyBeforeWriteDriver, _ options: BackupOptions, _ target: BlockNode, _ job: Job) throws(BlockError) {
        let clusterSize = filter.work.clusterSize
        var plan = filter.plan
        plan.settings.pieceSize = max(clusterSize, pieceSize)
        if let longest = options.longestPiece {
            guard longest >= clusterSize else {
                throw BlockError(.invalidArgument, "Required max-chunk (\(longest)) is less than backup cluster size (\(clusterSize))")
            }
            plan.settings.pieceSize = min(plan.settings.pieceSize, longest / clusterSize * clusterSize)
        }
        plan.settings.workers = min(options.workers, mostWorkers)
        plan.settings.usesCopyRange = options.usesCopyRange && !options.compresses
        plan.settings.compressionUnit = options.compresses ? target.compressionUnit : nil
        plan.settings.discardsSource = options.discardsSource
        plan.settings.targetGetsBacking = options.sync != .full
        plan.settings.startsWriteback = true
        plan.copied = { [progress = job.progress] count in progress.add(count) }
        filter.configure(plan)
    }

    private init(
        _ graph: BlockGraph, _ filterName: String, _ filter: CopyBeforeWriteDriver, _ door: BlockBackend, _ targetHold: BlockBackend,
        _ blockers: [OperationBlocker.ID], _ bitmap: DirtyBitmap?, _ options: BackupOptions
    ) {
        self.graph = graph
        self.filterName = filterName
        self.filter = filter
        self.door = door
        self.targetHold = targetHold
        self.blockers = blockers
        self.bitmap = bitmap
        self.options = options
    }

    // MARK: The work

    package func run(_ job: Job) async throws(BlockError) {
        hasBegun.store(true, ordering: .releasing)
        if options.sync == .none {
            job.progress.restart(total: filter.work.byteCount)
            // Guests make the copies; the job is there to be ended.
            while true {
                let ticket = job.wakeUps
                try await job.pausePoint()
                await job.sleep(for: nil, since: ticket)
            }
        }
        job.progress.setRemaining(filter.work.openByteCount)
        if options.sync == .top { try await leaveOutBacking(job) }
        let threads = CopyThreads(beside: job.context, for: options.workers > 1 ? filter.work.openByteCount : 0)
        defer { threads.stop() }
        try await copy(job, on: threads.contexts)
        if let error = filter.snapshotError { throw job.reported(error) }
    }

    private func copy(_ job: Job, on contexts: [IOContext]) async throws(BlockError) {
        let watch = BackupWatch(job, filter)
        let copier = filter.copier(gates: [door], delegate: watch)
        while true {
            try await job.waitForRate()
            watch.beginRound()
            // One error at a time: workers that fail end the round, and only the job's own task asks what to do.
            do throws(BlockError) { try await copier.run(on: contexts) } catch {
                guard let failure = watch.takeFailure() else { throw job.reported(error) }
                let ticket = job.wakeUps
                let policy = failure.isRead ? options.onSourceError : options.onTargetError
                switch job.action(for: failure.error, on: failure.isRead ? .read : .write, policy: policy) {
                case .report: throw job.reported(failure.error)
                // A side that always fails is not to be asked all the time.
                case .ignore: await job.sleep(for: Self.restAfterFailure, since: ticket)
                case .stop: break
                }
                continue
            }
            if filter.work.openByteCount == 0 || filter.snapshotError != nil { return }
            // What is left is on its way for a guest, or waits for the job's turn.
            if filter.work.markedByteCount == 0 { await filter.work.waitUntilIdle() }
        }
    }

    /// What the image does not have itself is not copied: clusters that come wholly from the layers below it.
    private func leaveOutBacking(_ job: Job) async throws(BlockError) {
        let work = filter.work
        var position = 0
        var nothingFrom = 0
        while position < work.byteCount {
            try await job.pausePoint()
            let start = position
            let run: CopyRun
            do throws(BlockError) {
                run = try await BlockBackend.withEntered([door]) { () async throws(BlockError) -> CopyRun in
                    guard let base = CopyGeometry.backing(of: filter.file.node) else { return CopyRun(.data, start..<work.byteCount) }
                    return try await ChainSource(filter.file, length: work.byteCount, above: base).run(at: start, limit: work.byteCount)
                }
            } catch { throw job.reported(error) }
            if run.kind == .nothing {
                let whole = GuestRange(GuestOffset(nothingFrom), byteCount: run.range.upperBound - nothingFrom)
                work.clear(whole)
            } else {
                nothingFrom = run.range.upperBound
            }
            position = run.range.upperBound
        }
        job.progress.setRemaining(work.openByteCount)
    }

    // MARK: The end

    package func commit(_ job: Job) async { settleBitmap(succeeded: true) }
    package func abort(_ job: Job) async { settleBitmap(succeeded: false) }

    /// The bitmap says from now on what the next backup has to copy.
    private func settleBitmap(succeeded: Bool) {
        guard let bitmap else { return }
        let mode = options.bitmapMode ?? .onSuccess
        guard mode != .never, succeeded || mode == .always, hasBegun.load(ordering: .acquiring) else { return bitmap.reclaim() }
        // A guest may be copying at this moment, and fail.
        let left = filter.work.open
        bitmap.abdicate()
        if succeeded { return }
        do throws(BlockError) { try bitmap.merge(left) } catch {
            // The disk has another size now: everything counts as changed.
            bitmap.withBits { $0.setAll() }
        }
    }

    package func clean(_ job: Job) async {
        filter.stop()
        do throws(BlockError) {
            try await graph.changeRegardless { change throws(BlockError) in
                for blocker in blockers { change.removeBlocker(blocker) }
                change.detach(targetHold)
                change.detach(door)
                try change.removeFilter(filterName)
            }
        } catch { StandardStreams.warn("The filter of \(job.holderName) stays: \(error)") }
    }
}

/// Freezes a bitmap together with the change that puts the filter in.
private final class Freeze: ChangeParticipant {
    private let bitmap: DirtyBitmap
    private let filter: CopyBeforeWriteDriver?

    /// - Parameter filter: keeps what the bitmap has, and nothing else; nil keeps everything.
    init(_ bitmap: DirtyBitmap, into filter: CopyBeforeWriteDriver?) {
        self.bitmap = bitmap
        self.filter = filter
    }

    func prepare() async throws(BlockError) { try bitmap.freeze() }
    func commit() async { filter?.keep(bitmap.bits) }
    func abort() async { bitmap.reclaim() }
}
