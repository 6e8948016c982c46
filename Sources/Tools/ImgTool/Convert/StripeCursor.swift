import Synchronization

/// Hands out the next stretch of work: the target's bytes from start to end, a stripe at a time, to whoever asks first.
final class StripeCursor: Sendable {
    struct Stripe: Sendable {
        /// Counts from 0, without gaps.
        let number: Int
        let range: Range<Int>
    }

    private struct State {
        var position = 0
        var issued = 0
        /// Bytes that are done with, for progress.
        var done = 0
        var isStopped = false
    }

    /// Bytes in all.
    let length: Int
    private let stripeSize: Int
    private let state = Mutex(State())

    init(length: Int, stripeSize: Int) {
        self.length = length
        self.stripeSize = stripeSize
    }

    func next() -> Stripe? {
        state.withLock { state in
            guard state.position < length, !state.isStopped else { return nil }
            let start = state.position
            // Stripes end at multiples of their size also after a jump, so that requests stay aligned.
            let end = min(length, start - start % stripeSize + stripeSize)
            state.position = end
            state.issued += 1
            return Stripe(number: state.issued - 1, range: start..<end)
        }
    }

    /// Leaves out everything up to `position`: it was found that there is nothing to do. Going back is not possible.
    func skip(to position: Int) {
        state.withLock { state in
            guard position > state.position else { return }
            state.done += min(position, length) - state.position
            state.position = min(position, length)
        }
    }

    /// No further stripe is handed out.
    func stop() { state.withLock { $0.isStopped = true } }

    /// - Returns: bytes done so far.
    func finish(_ stripe: Stripe) -> Int {
        state.withLock { state in
            state.done += stripe.range.count
            return state.done
        }
    }
}
