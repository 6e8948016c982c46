package import BlockGraph
import IOCore
package import StrataBase

/// Which clusters of a disk are still to be copied, and which are on their way: for copies that are driven from two sides, by workers that go through
/// everything and by guests whose writes must not come before a copy. Any thread.
///
/// A cluster is marked, in flight, or done with. Taking a piece unmarks it, and only its holder copies it; if that fails the piece is marked again.
package final class ClusterWork: CopyWork {
    private struct State: Sendable {
        var marks: HierarchicalBitmap
        var inFlight: [CopyPiece] = []
        var issued = 0
        /// Where workers look next.
        var cursor = GuestOffset(0)
        var isStopped = false

        mutating func take(in range: GuestRange, limit: Int) -> CopyPiece? {
            guard let run = marks.nextDirtyRange(in: range, limit: limit) else { return nil }
            marks.clear(run)
            let piece = CopyPiece(number: issued, range: run.start.rawValue..<run.end.rawValue)
            issued += 1
            inFlight.append(piece)
            return piece
        }
    }

    private let state: AsyncCondition<State>
    /// Bytes.
    package let byteCount: Int
    /// Bytes: a power of two. Pieces begin and end at multiples of it, or at the end of the disk.
    package let clusterSize: Int
    private let longestPiece: Int

    /// Nothing is marked.
    /// - Parameter longestPiece: of the pieces for workers, in bytes.
    /// - Throws: `.tooLarge` for more clusters than a bitmap takes.
    package init(byteCount: Int, clusterSize: Int, longestPiece: Int) throws(BlockError) {
        self.byteCount = byteCount
        self.clusterSize = clusterSize
        self.longestPiece = max(clusterSize, longestPiece.roundedDown(to: clusterSize))
        state = AsyncCondition(State(marks: try HierarchicalBitmap(byteCount: byteCount, granularity: clusterSize)))
    }

    private var everything: GuestRange { GuestRange(GuestOffset(0), byteCount: byteCount) }

    /// The whole clusters that a range touches, cut to the disk.
    package func clusters(around range: GuestRange) -> GuestRange {
        let end = min(byteCount, range.end.roundedUp(to: clusterSize).rawValue)
        let start = min(range.start.roundedDown(to: clusterSize).rawValue, end)
        return GuestRange(GuestOffset(start), byteCount: end - start)
    }

    // MARK: What is to be done

    package func markAll() { state.withLock { $0.marks.setAll() } }
    /// Exactly what a bitmap has marked is to be copied, and the rest of clusters that it has marked in part.
    package func mark(as bitmap: HierarchicalBitmap) {
        state.withLock { state in
            state.marks.clearAll()
            state.marks.merge(bitmap)
        }
    }

    /// The clusters that lie wholly in the range need no copying any more. What is in flight goes on.
    package func clear(_ range: GuestRange) { state.withLock { $0.marks.clear(range) } }

    /// Bytes that are marked; the last cluster counts as much of it as the disk has.
    package var markedByteCount: Int { state.withLock { $0.marks.dirtyByteCount(in: GuestRange(GuestOffset(0), byteCount: byteCount)) } }
    /// Bytes that are marked or in flight.
    package var openByteCount: Int {
        state.withLock { state in
            state.inFlight.reduce(state.marks.dirtyByteCount(in: GuestRange(GuestOffset(0), byteCount: byteCount))) { $0 + $1.range.count }
        }
    }

    /// What is marked; what is in flight is not.
    package var marked: HierarchicalBitmap { state.withLock { $0.marks } }

    /// What is marked or in flight: all that is not known to be copied.
    package var open: HierarchicalBitmap {
        state.withLock { state in
            var open = state.marks
            for piece in state.inFlight { open.set(GuestRange(GuestOffset(piece.range.lowerBound), byteCount: piece.range.count)) }
            return open
        }
    }

    /// Waits until nothing is in flight at some moment.
    package func waitUntilIdle() async { await state.wait { $0.inFlight.isEmpty ? () : nil } }

    // MARK: Workers

    package func next() -> CopyPiece? {
        state.withLock { state in
            if state.isStopped { return nil }
            let rest = GuestRange(state.cursor, byteCount: byteCount - state.cursor.rawValue)
            guard let piece = state.take(in: rest, limit: longestPiece) ?? state.take(in: everything, limit: longestPiece) else { return nil }
            state.cursor = GuestOffset(piece.range.upperBound)
            return piece
        }
    }

    package func skip(_ range: Range<Int>) -> Int {
        state.withLock { state in
            let end = range.upperBound >= byteCount ? byteCount : range.upperBound / clusterSize * clusterSize
            let start = range.lowerBound.roundedUp(to: clusterSize)
            guard start < end else { return 0 }
            let whole = GuestRange(GuestOffset(start), byteCount: end - start)
            let count = state.marks.dirtyByteCount(in: whole)
            if count > 0 { state.marks.clear(whole) }
            return count
        }
    }

    package func finish(_ piece: CopyPiece, succeeded: Bool) {
        state.update { state in
            state.inFlight.removeAll { $0.number == piece.number }
            if !succeeded { state.marks.set(GuestRange(GuestOffset(piece.range.lowerBound), byteCount: piece.range.count)) }
        }
    }

    package func stop() { state.withLock { $0.isStopped = true } }
    package func restart() { state.withLock { $0.isStopped = false } }

    // MARK: Guests

    package enum Claim: Sendable {
        /// The caller copies this now, and then asks again.
        case piece(CopyPiece)
        /// Nothing of the range is marked or in flight.
        case clear
    }

    /// What has to be done before a range may change. Waits for what others are copying there. Whoever gets a piece returns it by `finish`.
    /// - Parameter range: whole clusters (`clusters(around:)`).
    package func claim(in range: GuestRange, longestPiece: Int) async -> Claim {
        await state.wait { state in
            if let piece = state.take(in: range, limit: longestPiece) { return .piece(piece) }
            let (start, end) = (range.start.rawValue, range.end.rawValue)
            return state.inFlight.contains { $0.range.lowerBound < end && start < $0.range.upperBound } ? nil : .clear
        }
    }
}
