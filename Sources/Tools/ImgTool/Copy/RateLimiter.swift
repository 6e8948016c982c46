import IOCore
import StrataBase
import Synchronization
import ToolSupport

/// Spaces work out so that not more than so many bytes a second are moved.
final class RateLimiter: Sendable {
    private let bytesPerSecond: Int
    private let start = ContinuousClock.now
    private let spent = Mutex(0)

    init(bytesPerSecond: Int) { self.bytesPerSecond = max(1, bytesPerSecond) }

    /// The value of `-r`, in bytes per second; nil for as fast as possible.
    static func rate(_ text: String) throws(ToolFailure) -> Int? {
        let bytes = try NumberArgument.parse(text, "rate limit", in: 0...Int.max)
        return bytes == 0 ? nil : bytes
    }

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
