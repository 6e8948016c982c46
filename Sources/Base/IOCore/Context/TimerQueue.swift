internal import CStrataLinux
import StrataBase
import Synchronization

/// A call that a context makes at a later time, unless it is cancelled first.
package final class IOTimer: Sendable {
    private let state: Mutex<(@Sendable () -> Void)?>
    fileprivate let deadline: Int64

    fileprivate init(deadline: Int64, _ body: @escaping @Sendable () -> Void) {
        self.deadline = deadline
        state = Mutex(body)
    }

    /// After this the body is not called any more (unless it is running at this moment). Any thread.
    package func cancel() { state.withLock { $0 = nil } }

    func fire() {
        let body = state.withLock { body in
            let taken = body
            body = nil
            return taken
        }
        body?()
    }
}

/// The timers of one context in the order of their deadlines. Own thread only. There are few (handshake deadlines, rate limits), so a sorted
/// array beats a heap.
struct TimerQueue {
    private var timers: [IOTimer] = []

    var isEmpty: Bool { timers.isEmpty }

    mutating func insert(_ timer: IOTimer) {
        let index = timers.firstIndex { $0.deadline > timer.deadline } ?? timers.count
        timers.insert(timer, at: index)
    }

    /// How long to wait at most: negative without timers.
    func nanosecondsToNext() -> Int64 {
        guard let first = timers.first else { return -1 }
        return max(0, first.deadline - strata_monotonic_now())
    }

    mutating func takeDue() -> [IOTimer] {
        let now = strata_monotonic_now()
        let count = timers.firstIndex { $0.deadline > now } ?? timers.count
        let due = Array(timers[..<count])
        timers.removeFirst(count)
        return due
    }

}

extension IOContext {
    /// Calls `body` on this context's thread after `delay`. Any thread.
    @discardableResult
    package func schedule(after delay: Duration, _ body: @escaping @Sendable () -> Void) -> IOTimer {
        let (seconds, attoseconds) = delay.components
        let nanoseconds = min(max(seconds, 0), 1 << 31) * 1_000_000_000 + attoseconds / 1_000_000_000
        let timer = IOTimer(deadline: strata_monotonic_now() + nanoseconds, body)
        if isCurrent { timers.insert(timer) } else { post { [self] in timers.insert(timer) } }
        return timer
    }

    /// Suspends the calling task for `delay`.
    package func sleep(for delay: Duration) async {
        unsafe await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            schedule(after: delay) { unsafe continuation.resume() }
        }
    }
}
