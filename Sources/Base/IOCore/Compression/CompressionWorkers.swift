package import StrataBase
import Synchronization

/// The streams of some units of data, each nil where it would not be shorter than the unit.
package struct CompressedUnits: Sendable {
    /// The stream of unit n starts at n times the unit's size.
    package let buffer: IOBuffer
    /// Bytes.
    package let lengths: [Int?]
}

/// Compression on the worker threads of the process (`BlockingPool`), so that the thread of a guest's requests stays free for others.
///
/// Not more of it runs at once than there are processors: more would only take the caches from each other.
package enum CompressionWorkers {
    private struct State {
        /// What is taken leaves nil, so that its buffers go.
        var waiting: [(@Sendable () -> Void)?] = []
        /// Index of the next entry.
        var next = 0
        var running = 0
    }

    private static let state = Mutex(State())
    private static let limit = HostProcessors.count

    /// Compresses each unit of `input` by itself. The caller leaves `input` alone meanwhile.
    /// - Parameter unit: bytes, at least 2; `input` is a multiple of it.
    package static func compress(_ input: IOBuffer, unit: Int, _ format: StreamFormat) async -> CompressedUnits {
        precondition(input.byteCount.isMultiple(of: unit) && unit > 1, "whole units are compressed")
        return await run {
            let output = IOBuffer(byteCount: input.byteCount)
            var lengths: [Int?] = []
            lengths.reserveCapacity(input.byteCount / unit)
            for start in stride(from: 0, to: input.byteCount, by: unit) {
                lengths.append(format.compress(input, at: start, byteCount: unit, into: output))
            }
            return CompressedUnits(buffer: output, lengths: lengths)
        }
    }

    /// `StreamFormat.expand`, on a worker thread.
    package static func expand(_ input: IOBuffer, into output: IOBuffer, _ format: StreamFormat) async throws(BlockError) {
        let result = await run { () -> Result<Void, BlockError> in
            do throws(BlockError) { return .success(try format.expand(input, into: output)) } catch { return .failure(error) }
        }
        try result.get()
    }

    private static func run<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
        unsafe await withUnsafeContinuation { (continuation: UnsafeContinuation<Result, Never>) in
            let starts = state.withLock { state in
                state.waiting.append { unsafe continuation.resume(returning: body()) }
                if state.running >= limit { return false }
                state.running += 1
                return true
            }
            if starts { BlockingPool.submit { work() } }
        }
    }

    private static func work() {
        while true {
            let work = state.withLock { state -> (@Sendable () -> Void)? in
                guard state.next < state.waiting.count else {
                    state.running -= 1
                    return nil
                }
                let work = state.waiting[state.next]
                state.waiting[state.next] = nil
                state.next += 1
                // Also when the queue never empties it does not grow for ever.
                if state.next == state.waiting.count || state.next > 256 {
                    state.waiting.removeFirst(state.next)
                    state.next = 0
                }
                return work
            }
            guard let work else { return }
            work()
        }
    }
}
