import BlockGraph
import IOCore
import StrataBase

/// Where the kept state of a disk is, cluster by cluster, and who is reading it from the disk itself at the moment. Any thread.
final class SnapshotKeeper: Sendable {
    private struct State: Sendable {
        /// Clusters that are in the target, or need not be kept: the disk may have changed there.
        var done: HierarchicalBitmap
        /// Clusters that may be read.
        var access: HierarchicalBitmap
        /// Readers of the disk, for whom writes wait.
        var readers: [(id: UInt64, range: GuestRange)] = []
        var nextReader: UInt64 = 0
        /// Why the state is lost.
        var failure: BlockError?

        func isRead(_ range: GuestRange) -> Bool { readers.contains { $0.range.overlaps(range) } }
    }

    private let state: AsyncCondition<State>
    private let clusterSize: Int
    let byteCount: Int

    /// Everything is on the disk, nothing may be read.
    init(byteCount: Int, clusterSize: Int) throws(BlockError) {
        let empty = try HierarchicalBitmap(byteCount: byteCount, granularity: clusterSize)
        self.clusterSize = clusterSize
        self.byteCount = byteCount
        state = AsyncCondition(State(done: empty, access: empty))
    }

    /// What may be read from now on: what a bitmap has marked, in whole clusters; nil is all.
    func allow(_ bitmap: HierarchicalBitmap?) {
        state.withLock { state in
            state.access.clearAll()
            if let bitmap { state.access.merge(bitmap) } else { state.access.setAll() }
        }
    }

    var failure: BlockError? { state.withLock { $0.failure } }

    // MARK: Writers

    /// Whether clusters may be written to at once.
    func isDone(_ clusters: GuestRange) -> Bool {
        state.withLock { state in
            (state.failure != nil || clusters.isEmpty || state.done.nextClean(in: clusters) == nil) && !state.isRead(clusters)
        }
    }

    /// The clusters are in the target. Returns when nobody reads them from the disk any more.
    func finish(_ clusters: GuestRange) async {
        await state.wait { state in
            if state.failure == nil { state.done.set(clusters) }
            return state.isRead(clusters) ? nil : ()
        }
    }

    /// The state is lost. Returns when nobody reads the clusters from the disk any more.
    func giveUp(_ error: BlockError, _ clusters: GuestRange) async {
        await state.wait { state in
            if state.failure == nil { state.failure = error }
            return state.isRead(clusters) ? nil : ()
        }
    }

    // MARK: Readers

    enum Place: Sendable {
        /// In the target, for so many bytes.
        case target(byteCount: Int)
        /// On the disk, for so many bytes, where it stays until `leave`.
        case disk(byteCount: Int, reader: UInt64)
    }

    /// Where the kept state of a range begins.
    /// - Parameter whole: only if all of the range is in one place.
    /// - Returns: nil when it is not in one place.
    /// - Throws: `.accessDenied` when it may not be read, or is lost.
    func enter(_ range: GuestRange, whole: Bool = false) throws(BlockError) -> Place? {
        let found: Result<Place?, BlockError> = state.withLock { state in
            if let failure = state.failure {
                return .failure(BlockError(.accessDenied, "the snapshot is lost: \(failure.message)"))
            }
            if state.access.nextClean(in: range) != nil {
                return .failure(BlockError(.accessDenied, "the snapshot does not have \(range.byteCount) bytes at offset \(range.start.rawValue)"))
            }
            let (isDone, byteCount) = state.done.run(in: range)
            if whole, byteCount < range.byteCount { return .success(nil) }
            if isDone { return .success(.target(byteCount: byteCount)) }
            state.nextReader += 1
            state.readers.append((state.nextReader, GuestRange(range.start, byteCount: byteCount)))
            return .success(.disk(byteCount: byteCount, reader: state.nextReader))
        }
        return try found.get()
    }

    func leave(_ reader: UInt64) { state.update { state in state.readers.removeAll { $0.id == reader } } }

    /// The clusters that lie wholly in the range are not wanted any more.
    /// - Returns: these clusters.
    func forget(_ range: GuestRange) -> GuestRange {
        let end = range.end.rawValue >= byteCount ? byteCount : range.end.roundedDown(to: clusterSize).rawValue
        let start = range.start.roundedUp(to: clusterSize).rawValue
        if start >= end { return GuestRange(range.start, byteCount: 0) }
        let whole = GuestRange(GuestOffset(start), byteCount: end - start)
        state.withLock { $0.access.clear(whole) }
        return whole
    }
}
