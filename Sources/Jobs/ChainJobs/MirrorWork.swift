import BlockCopy
import BlockFilters
import BlockGraph
import StrataBase
import Synchronization

/// What a mirror has to copy: the dirty parts of the source. A piece is not dirty while it is copied, so that a write which comes meanwhile marks it again.
final class MirrorWork: CopyWork {
    private struct State: Sendable {
        var issued = 0
        /// The locks of the pieces that are being copied, and their sizes.
        var locks: [Int: UInt64] = [:]
        var inFlight = 0
        var isStopped = false
        /// What may still be handed out in this round, in bytes.
        var budget = 0
        /// Where to look next: round and round, so that what is written over and over does not keep the rest waiting.
        var position = 0
    }

    private let dirty: DirtyBitmap
    private let locks: RangeLocks
    private let pieceSize: Int
    private let state = Mutex(State())

    init(_ dirty: DirtyBitmap, _ locks: RangeLocks, pieceSize: Int) {
        self.dirty = dirty
        self.locks = locks
        self.pieceSize = max(pieceSize, dirty.granularity)
    }

    /// Bytes that are dirty or on their way.
    var remaining: Int { state.withLock { $0.inFlight } + dirty.dirtyByteCount }

    /// Begins a round, in which as much is handed out as is dirty now: it ends although guests go on writing.
    func beginRound() {
        let bytes = dirty.dirtyByteCount
        state.withLock { ($0.budget, $0.isStopped) = (bytes, false) }
    }

    func next() -> CopyPiece? {
        state.withLock { state -> CopyPiece? in
            if state.isStopped || state.budget <= 0 { return nil }
            let length = dirty.byteCount
            if state.position >= length { state.position = 0 }
            return take(from: state.position, below: length, &state) ?? take(from: 0, below: state.position, &state)
        }
    }

    /// The first dirty piece on which no active write is under way.
    private func take(from start: Int, below end: Int, _ state: inout State) -> CopyPiece? {
        var start = start
        while start < end {
            let area = GuestRange(GuestOffset(start), byteCount: end - start)
            let limit = pieceSize
            guard let range = dirty.withBits({ $0.nextDirtyRange(in: area, limit: limit) }) else { return nil }
            if let lock = locks.tryEnter(range, isCopy: true) {
                dirty.clear(range)
                state.issued += 1
                state.locks[state.issued] = lock
                state.inFlight += range.byteCount
                state.budget -= range.byteCount
                state.position = range.end.rawValue
                return CopyPiece(number: state.issued, range: range.start.rawValue..<range.end.rawValue)
            }
            start = range.end.rawValue
        }
        return nil
    }

    /// Only what was handed out is done with: a guest may have written to the rest meanwhile.
    func skip(_ range: Range<Int>) -> Int { 0 }

    func finish(_ piece: CopyPiece, succeeded: Bool) {
        if !succeeded { dirty.set(GuestRange(GuestOffset(piece.range.lowerBound), byteCount: piece.range.count)) }
        let lock = state.withLock { state in
            state.inFlight -= piece.range.count
            return state.locks.removeValue(forKey: piece.number)
        }
        if let lock { locks.leave(lock) }
    }

    func stop() { state.withLock { $0.isStopped = true } }
    func restart() { state.withLock { $0.isStopped = false } }
}
