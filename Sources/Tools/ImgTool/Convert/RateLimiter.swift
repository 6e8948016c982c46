import IOCore
import Synchronization

/// Spaces work out so that not more than so many bytes a second are moved.
final class RateLimiter: Sendable {
    private let bytesPerSecond: Int
    private let start = ContinuousClock.now
    private let spent = Mutex(0)

    init(bytesPerSecond: Int) { self.bytesPerSecond = max(1, bytesPerSecond) }

    /// Returns when it is time to move `byteCount` more bytes.
    func wait(for byteCount: Int) async {
        let before = spent.withLock { spent in
            defer { spent += byteCount }
            return spent
        }
        let due = start + .seconds(Double(before) / Double(bytesPerSecond))
        let delay = ContinuousClock.now.duration(to: due)
        if delay > .zero { await IOContext.current?.sleep(for: delay) }
    }
}
