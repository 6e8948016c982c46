import IOCore
import Synchronization

/// Spaces work out so that not more than so many bytes a second are moved.
final class RateLimiter: Sendable {
    private let bytesPerSecond: Int
    private let start = ContinuousClock.now
    private let spent = Mutex(0)

    init(bytesPerSecond: Int) { self.bytesPerSecond = max(1, bytesPerSecond) }

    /// Returns when it is time to go on after `byteCount` bytes were moved.
    func wait(after byteCount: Int) async {
        let spent = spent.withLock { spent in
            spent += byteCount
            return spent
        }
        let due = start + .seconds(Double(spent) / Double(bytesPerSecond))
        let delay = ContinuousClock.now.duration(to: due)
        if delay > .zero { await IOContext.current?.sleep(for: delay) }
    }
}
