import Synchronization

/// All of a disk from start to end, a stripe at a time, to whoever asks first.
package final class StripeCursor: CopyWork {
    private struct State {
        var position = 0
        var issued = 0
        /// Bytes that are done with, for progress.
        var done = 0
        var isStopped = false
        /// Stripes that failed.
        var returned: [CopyPiece] = []
    }

    /// Bytes in all.
    package let length: Int
    private let stripeSize: Int
    private let state = Mutex(State())

    package init(length: Int, stripeSize: Int) {
        self.length = length
        self.stripeSize = stripeSize
    }

    package func next() -> CopyPiece? {
        state.withLock { state in
            if state.isStopped { return nil }
            if let piece = state.returned.popLast() { return piece }
            guard state.position < length else { return nil }
            let start = state.position
            // Stripes end at multiples of their size also after a jump, so that requests stay aligned.
            let end = min(length, start - start % stripeSize + stripeSize)
            state.position = end
            state.issued += 1
            return CopyPiece(number: state.issued - 1, range: start..<end)
        }
    }

    /// Leaves out everything up to the end of the range. Going back is not possible.
    package func skip(_ range: Range<Int>) -> Int {
        state.withLock { state in
            guard range.upperBound > state.position else { return 0 }
            let skipped = min(range.upperBound, length) - state.position
            state.done += skipped
            state.position += skipped
            return skipped
        }
    }

    package func stop() { state.withLock { $0.isStopped = true } }
    package func restart() { state.withLock { $0.isStopped = false } }

    package func finish(_ piece: CopyPiece, succeeded: Bool) {
        state.withLock { state in
            if succeeded { state.done += piece.range.count } else { state.returned.append(piece) }
        }
    }

    /// Bytes done so far.
    package var done: Int { state.withLock { $0.done } }
}
