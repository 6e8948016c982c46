import BlockCopy
import BlockGraph
import BlockFilters
import IOCore
package import JobCore
package import StorageSchema
package import StrataBase
import Synchronization

/// Keeps a second disk like the first, and puts it into the first one's place when it is told to complete (blockdev-mirror). With a target below the
/// source it commits the active image of a chain (block-commit).
package final class MirrorJob: JobDriver {
    package static var type: JobType { .mirror }

    package struct Options: Sendable {
        package var source: String
        package var target: String
        package var sync = MirrorSyncMode.full
        /// The node whose place the target takes; nil for the source.
        package var replaces: String?
        /// What one bit of the bitmap stands for, in bytes.
        package var granularity: Int?
        package var isActive = false
        package var onSourceError = BlockdevOnError.report
        package var onTargetError = BlockdevOnError.report
        package var filterNodeName: String?
        /// Zeroes may be written by giving space back.
        package var unmaps = true
        /// The target is below the source.
        package var isCommit = false
        /// Everything at the target reads as zero, and stays so where nothing is written.
        package var targetIsEmpty = false
        /// The source is the target's backing file, and changes while the target stands on it.
        package var targetStandsOnSource = false
        /// How much may be in memory on its way, in bytes; nil for what is usual.
        package var bufferSize: Int?
        package init(source: String, target: String) {
            self.source = source
            self.target = target
        }
    }

    let options: Options
    let graph: BlockGraph
    let holdings: JobHoldings
    let source: BlockNode
    let target: BlockNode
    let filter: (node: BlockNode, driver: MirrorFilter)
    /// The one door for everything that the job does: it is above both sides.
    let gate: BlockBackend
    let dirty: DirtyBitmap
    let state = Mutex(State())

    struct State: Sendable {
        var wantsCompletion = false
        /// Everything was alike at some moment since writes go to both sides.
        var isActivelySynced = false
        /// The failure of an active write for which the policy is to fail.
        var failure: BlockError?
        /// Guests are kept away until the target has its place.
        var drain: ActiveDrain?
        /// The target takes the source's place; known when `run` has succeeded.
        var pivots = false
    }

    init(
        _ options: Options, _ graph: BlockGraph, _ holdings: JobHoldings, source: BlockNode, target: BlockNode, filter: (BlockNode, MirrorFilter),
        gate: BlockBackend, dirty: DirtyBitmap
    ) {
        self.options = options
        self.graph = graph
        self.holdings = holdings
        self.source = source
        self.target = target
        self.filter = filter
        self.gate = gate
        self.dirty = dirty
    }

    /// How long an idle mirror waits until it looks whether something has been written.
    private static let idleTime = Duration.milliseconds(100)
    /// Pieces that workers take, in bytes.
    private static let pieceSize = 1 << 20
    /// What is read and written at once at least, in bytes, however little memory there may be.
    private static let smallestBuffer = 4096
    /// After so many rounds a rest is taken as what a guest's writing leaves.
    private static let settlingRounds = 4
    /// What can be copied while guests wait, in bytes.
    private static let smallRest = 8 << 20

    // MARK: Copying

    package func run(_ job: Job) async throws(BlockError) {
        let length = source.length
        if target.length != length {
            guard options.isCommit else { throw BlockError(.invalidArgument, "Source and target image have different sizes") }
            if target.length < length { try await enlargeTarget(to: length) }
        }
        let link = ActiveWrites(job, self)
        filter.driver.observe(link)
        defer { filter.driver.observe(nil) }
        if options.isActive { try await switchToActiveMode() }
        try await markInitially(job, length)
        job.progress.restart(total: dirty.dirtyByteCount)

        let threads = CopyThreads(beside: job.context, for: dirty.dirtyByteCount)
        defer { threads.stop() }
        let work = MirrorWork(dirty, filter.driver.locks, pieceSize: Self.pieceSize)
        var settings = CopySettings()
        settings.asksTarget = true
        settings.targetGetsBacking = options.sync != .full && !options.isCommit
        settings.startsWriteback = true
        settings.zeroFlags = options.unmaps ? .mayUnmap : []
        if let limit = options.bufferSize {
            settings.pieceSize = min(settings.pieceSize, max(limit, Self.smallestBuffer))
            settings.workers = min(settings.workers, max(1, limit / settings.pieceSize))
        }
        let copying = JobCopying(job, onReadError: options.onSourceError, onWriteError: options.onTargetError)
        let copier = BlockCopier(
            ChainSource(filter.driver.file, length: length), to: filter.driver.target, work: work, settings, gates: [gate], delegate: copying)
        var rounds = 0
        while true {
            let ticket = job.wakeUps
            try await job.waitForRate()
            if let failure = state.withLock({ $0.failure }) { throw failure }
            let before = dirty.dirtyByteCount
            if before > 0 {
                Trace.chainRoundBegin(job: job.id, bytes: before)
                work.beginRound()
                let ignored = try await copying.round(copier, on: before >= CopyThreads.smallestShared ? threads.contexts : [job.context])
                Trace.chainRoundEnd(job: job.id, bytes: dirty.dirtyByteCount)
                job.progress.setRemaining(work.remaining)
                if job.mustStop { continue }
                // What cannot be copied is not a rest that a guest leaves.
                rounds = ignored == nil ? rounds + 1 : 0
            }
            let rest = dirty.dirtyByteCount
            // A guest that never rests leaves something to do after every round. When that is little and stays so, the sides are as alike as they
            // get while it writes; the rest is copied when it is kept away.
            let isFollowing = rest == 0 || (rounds >= Self.settlingRounds && rest <= Self.smallRest)
            if rest == 0, filter.driver.isInActiveMode { state.withLock { $0.isActivelySynced = true } }
            if isFollowing, !job.isReady {
                if try await flushTarget(job) { job.becomeReady() }
                continue
            }
            if isFollowing, state.withLock({ $0.wantsCompletion }) || job.isEndRequested {
                if try await end(job, work, copier, copying) { return }
                continue
            }
            if rest == 0 {
                await job.sleep(for: Self.idleTime, since: ticket)
            } else if rest >= before {
                // Nothing of it could be taken, or it is written as fast as it is copied.
                await job.sleep(for: .milliseconds(1), since: ticket)
            }
        }
    }

    /// Keeps guests away and copies what is left. They come back when the target has its place.
    /// - Returns: whether everything is alike.
    private func end(_ job: Job, _ work: MirrorWork, _ copier: BlockCopier, _ copying: JobCopying) async throws(BlockError) -> Bool {
        let drain = await graph.beginDrain(of: [source.name, target.name])
        Trace.mirrorDrained(job: job.id, dirty: dirty.dirtyByteCount)
        var failure: CopyFailure?
        do throws(BlockError) {
            // The gate is closed, for this job too; that the graph keeps its shape is as good.
            failure = try await graph.withoutChanges { () async throws(BlockError) -> CopyFailure? in
                var buffer: IOBuffer?
                work.beginRound()
                while let piece = work.next() {
                    do throws(CopyFailure) {
                        let tally = try await copier.copy(piece, &buffer)
                        work.finish(piece, succeeded: true)
                        job.progress.add(tally.finished)
                    } catch {
                        work.finish(piece, succeeded: false)
                        return error
                    }
                }
                do throws(BlockError) { try await filter.driver.target.flush() } catch { return CopyFailure(error, 0..<0, isRead: false) }
                return nil
            }
        } catch { failure = CopyFailure(error, 0..<0, isRead: false) }
        guard failure == nil, dirty.dirtyByteCount == 0 else {
            await graph.end(drain)
            if let failure { try copying.settle(failure) }
            return false
        }
        job.progress.setRemaining(0)
        state.withLock { state in
            state.drain = drain
            state.pivots = state.wantsCompletion && !job.isEndRequested
        }
        return true
    }

    /// - Returns: whether it has succeeded; if not, the job goes on or is held, as the policy says.
    private func flushTarget(_ job: Job) async throws(BlockError) -> Bool {
        do throws(BlockError) {
            try await BlockBackend.withEntered([gate]) { () async throws(BlockError) in try await filter.driver.target.flush() }
            return true
        } catch {
            if job.action(for: error, on: .write, policy: options.onTargetError) == .report { throw job.reported(error) }
            return false
        }
    }

    private func enlargeTarget(to length: Int) async throws(BlockError) {
        try await BlockBackend.withEntered([gate]) { () async throws(BlockError) in try await filter.driver.target.resize(to: length) }
    }

    /// Marks what the target has to have in the beginning.
    private func markInitially(_ job: Job, _ length: Int) async throws(BlockError) {
        if length == 0 { return }
        switch options.sync {
        case .full where options.targetIsEmpty: try await markInitially(job, length, above: nil) { status, _ in !status.flags.contains(.zero) }
        case .full: dirty.set(GuestRange(GuestOffset(0), byteCount: length))
        case .top:
            let base = options.isCommit ? roof : source.image.below
            // Where an image of the chain ends early there are zeroes, which the base may not have.
            try await markInitially(job, length, above: base) { status, node in base == nil ? status.flags.contains(.allocated) : node !== base }
        case .none, .incremental, .bitmap: break
        }
    }

    /// Marks what `isWanted` says of the source's chain down to the base, which it gets for each stretch with the node that decides it.
    private func markInitially(
        _ job: Job, _ length: Int, above base: BlockNode?, where isWanted: (BlockStatus, BlockNode) -> Bool
    ) async throws(BlockError) {
        var position = 0
        while position < length {
            try await job.pausePoint()
            let range = GuestRange(GuestOffset(position), byteCount: length - position)
            let (status, node) = try await BlockBackend.withEntered([gate]) { () async throws(BlockError) -> (BlockStatus, BlockNode) in
                let answer = try await source.chainStatus(of: range, above: base, precise: false)
                return (answer.status, answer.node)
            }
            if isWanted(status, node) { dirty.set(GuestRange(GuestOffset(position), byteCount: status.byteCount)) }
            position += status.byteCount
        }
    }

    /// The highest node that shows what the target does: the target, or a filter on it.
    private var roof: BlockNode {
        var node = source
        while node.image !== target.image, let below = node.below { node = below }
        return node
    }

    private func switchToActiveMode() async throws(BlockError) {
        let graph = graph
        let name = filter.node.name
        let driver = filter.driver
        driver.setActiveMode(true)
        do throws(BlockError) {
            try await graph.change { change in
                // Nobody else may write to the source from now on, and writes that have begun without the target are over.
                change.refreshPermissions(of: name)
                change.drain(name)
            }
        } catch {
            driver.setActiveMode(false)
            throw error
        }
        // What goes to both sides need not be noted; what does not is noted by the filter and here.
        dirty.disable()
    }

    // MARK: What users ask

    package func complete(_ job: Job) async throws(BlockError) {
        if let replaces = options.replaces, await graph.node(named: replaces) == nil {
            throw BlockError(.notFound, "Failed to find node with node-name='\(replaces)'")
        }
        state.withLock { $0.wantsCompletion = true }
    }

    package func cancels(_ job: Job, isForced: Bool) -> Bool { isForced || !job.isReady }

    package func change(_ options: BlockJobChangeOptions, of job: Job) async throws(BlockError) {
        if self.options.isCommit { throw BlockError(.unsupported, "Job type does not support change") }
        guard case .mirror(let mirror) = options.branch else {
            throw BlockError(.invalidArgument, "Job type mismatch: Expected '\(job.type.rawValue)', got '\(options.type.rawValue)'")
        }
        if mirror.copyMode == .writeBlocking, filter.driver.isInActiveMode { return }
        if mirror.copyMode == .background {
            if !filter.driver.isInActiveMode { return }
            throw BlockError(.unsupported, "Change to copy mode 'background' is not implemented")
        }
        try await switchToActiveMode()
        job.wake()
    }

    package func branch(_ job: Job) -> BlockJobInfo.Branch {
        options.isCommit ? .commit : .mirror(BlockJobInfoMirror(activelySynced: state.withLock { $0.isActivelySynced }))
    }
}

/// What the filter tells of writes that go to both sides.
private final class ActiveWrites: MirrorObserver {
    private let job: Job
    private unowned let mirror: MirrorJob

    init(_ job: Job, _ mirror: MirrorJob) {
        self.job = job
        self.mirror = mirror
    }

    func wroteToBoth(_ range: GuestRange) {
        // Only what is wholly written is known to be alike.
        let granularity = mirror.dirty.granularity
        let start = range.start.roundedUp(to: granularity)
        let end = range.end.rawValue >= mirror.dirty.byteCount ? range.end : range.end.roundedDown(to: granularity)
        if start < end { mirror.dirty.clear(GuestRange(start, byteCount: end - start)) }
        job.progress.addUnforeseen(range.byteCount)
    }

    func changedSource(_ range: GuestRange) {
        mirror.dirty.set(range)
        mirror.state.withLock { $0.isActivelySynced = false }
        job.wake()
    }

    func failedToWrite(_ range: GuestRange, _ error: BlockError) {
        Trace.mirrorActiveWriteFailed(job: job.id, offset: range.start.rawValue, reason: error.description)
        mirror.dirty.set(range)
        mirror.state.withLock { $0.isActivelySynced = false }
        if job.action(for: error, on: .write, policy: mirror.options.onTargetError) == .report {
            mirror.state.withLock { state in if state.failure == nil { state.failure = job.reported(error) } }
        }
        job.wake()
    }
}
