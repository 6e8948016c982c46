import BlockFilters
import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization

/// Stands over the source of a mirror. Everything that goes to the target goes through its second edge, so that a drained section of the target keeps
/// guests out as well.
///
/// In the mode `write-blocking` a write goes to both sides, at the same time, before it is over. Writes that overlap each other or a copy that is under way take turns, so
/// that both sides see them in one order. What is discarded is copied by the job afterwards: the two sides may discard differently.
final class MirrorFilter: FilterDriver, ChainFreezing {
    static let formatName = "mirror_top"

    let file: BlockChild
    let target: BlockChild
    /// The target is below the source: an active commit.
    private let isCommit: Bool
    /// The source shows through in the target.
    private let targetStandsOnSource: Bool
    /// Keeps copies and active writes of the same bytes apart.
    let locks = RangeLocks()
    private let isActive = Atomic<Bool>(false)
    /// The mirror is about to go: it needs nothing any more.
    private let isStopped = Atomic<Bool>(false)
    /// Trying in vain means to write to the source twice. So after the target has refused, as it does until it is written for the first time, so many
    /// writes do not try.
    private static let writesAfterRefusal = 64
    private let writesWithoutTry = Atomic<Int>(0)
    /// What the job has to hear of active writes.
    private let observer = Mutex<(any MirrorObserver)?>(nil)

    init(_ file: BlockChild, _ target: BlockChild, isCommit: Bool, targetStandsOnSource: Bool) {
        self.file = file
        self.target = target
        self.isCommit = isCommit
        self.targetStandsOnSource = targetStandsOnSource
    }

    static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver { throw .onlyForJobs(formatName) }

    var children: [BlockChild] { [file, target] }
    /// What lies between is going into the target.
    var frozenBottom: String? { isCommit && !isStopped.load(ordering: .sequentiallyConsistent) ? target.node.name : nil }

    func observe(_ observer: (any MirrorObserver)?) { self.observer.withLock { $0 = observer } }

    /// Whether writes go to both sides. Permissions are computed anew by the caller.
    func setActiveMode(_ isActive: Bool) { self.isActive.store(isActive, ordering: .sequentiallyConsistent) }
    var isInActiveMode: Bool { isActive.load(ordering: .sequentiallyConsistent) }

    /// Writes go to the source only, and nothing is asked of the target. Permissions follow when the graph changes next.
    func stop() {
        isStopped.store(true, ordering: .sequentiallyConsistent)
        isActive.store(false, ordering: .sequentiallyConsistent)
    }

    /// It could not go: it asks again for what a mirror in the mode `background` does.
    func goOn() { isStopped.store(false, ordering: .sequentiallyConsistent) }

    func permissions(for role: ChildRole, parents: PermissionGrant, isReadOnly: Bool) -> PermissionGrant {
        let isStopped = isStopped.load(ordering: .sequentiallyConsistent)
        if role.contains(.filtered) {
            if isStopped { return parents }
            // While the base of a chain is written to, the images above it make sense only together.
            if isCommit { return PermissionGrant(used: parents.used.subtracting(.consistentRead), shared: .all) }
            var grant = parents
            grant.used.insert(.consistentRead)
            if isActive.load(ordering: .sequentiallyConsistent) { grant.shared.remove(.write) }
            return grant
        }
        if isStopped { return .none }
        // A base that is long enough need not grow: somebody may rely on its size.
        let used: BlockPermissions = target.length < file.length ? [.write, .resize] : .write
        if isCommit { return PermissionGrant(used: used, shared: [.consistentRead, .write, .writeUnchanged]) }
        // Who does not tolerate that the target's data changes does not tolerate that its backing file is written to.
        return PermissionGrant(used: .write, shared: targetStandsOnSource ? [.write, .writeUnchanged] : .writeUnchanged)
    }

    // MARK: Writing

    func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        guard isActive.load(ordering: .acquiring) else { return file.tryWrite(source, at: offset, flags: flags) }
        if writesWithoutTry.load(ordering: .relaxed) > 0 {
            writesWithoutTry.wrappingSubtract(1, ordering: .relaxed)
            return false
        }
        let range = GuestRange(offset, byteCount: source.byteCount)
        guard let observer = observer.withLock({ $0 }), let lock = locks.tryEnter(range, isCopy: true) else { return false }
        defer { locks.leave(lock) }
        guard file.tryWrite(source, at: offset, flags: flags) else { return false }
        if target.tryWrite(source, at: offset) {
            observer.wroteToBoth(range)
            return true
        }
        // The write that follows brings both sides to the same state; should it never come, the job does.
        writesWithoutTry.store(Self.writesAfterRefusal, ordering: .relaxed)
        observer.changedSource(range)
        return false
    }

    func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        let range = GuestRange(offset, byteCount: source.byteCount)
        try await mirrored(
            range, { () async throws(BlockError) in try await file.write(source, at: offset, flags: flags) },
            { [target] () async throws(BlockError) in try await target.write(source, at: offset, flags: flags.intersection(.forceUnitAccess)) })
    }

    func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        try await mirrored(
            range, { () async throws(BlockError) in try await file.writeZeroes(range, flags: flags) },
            { [target] () async throws(BlockError) in try await target.writeZeroes(range, flags: flags.intersection([.forceUnitAccess, .mayUnmap])) })
        return .done
    }

    func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        guard isActive.load(ordering: .acquiring), let observer = observer.withLock({ $0 }) else {
            try await file.discard(range)
            return .done
        }
        let lock = await locks.enter(range, isCopy: true)
        defer { locks.leave(lock) }
        defer { observer.changedSource(range) }
        try await file.discard(range)
        return .done
    }

    /// Does something to the source, and in active mode to the target as well.
    private func mirrored(
        _ range: GuestRange, _ atSource: @Sendable () async throws(BlockError) -> Void, _ atTarget: @escaping @Sendable () async throws(BlockError) -> Void
    ) async throws(BlockError) {
        guard isActive.load(ordering: .acquiring), let observer = observer.withLock({ $0 }) else { return try await atSource() }
        let lock = await locks.enter(range, isCopy: true)
        defer { locks.leave(lock) }
        async let outcomeAtTarget = Self.failure(of: atTarget)
        let failureAtSource = await Self.failure(of: atSource)
        let failureAtTarget = await outcomeAtTarget
        if let error = failureAtSource {
            // Nobody knows what it has changed.
            observer.changedSource(range)
            throw error
        }
        if let error = failureAtTarget {
            // The guest's write has succeeded; the job copies it later.
            observer.failedToWrite(range, error)
        } else {
            observer.wroteToBoth(range)
        }
    }

    /// - Returns: why it has failed; nil when it has not.
    private static func failure(of body: @Sendable () async throws(BlockError) -> Void) async -> BlockError? {
        do throws(BlockError) {
            try await body()
            return nil
        } catch { return error }
    }
}

/// The job as its filter sees it. Any thread, in the middle of a guest's request.
protocol MirrorObserver: AnyObject, Sendable {
    /// Nobody else writes to these bytes at this moment.
    func wroteToBoth(_ range: GuestRange)
    /// The source has changed and the target has not.
    func changedSource(_ range: GuestRange)
    func failedToWrite(_ range: GuestRange, _ error: BlockError)
}
