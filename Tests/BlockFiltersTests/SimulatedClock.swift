import BlockFilters
import DriverTesting
import IOCore
import Synchronization

/// A clock that stands still until it is told to go on.
final class SimulatedClock: ThrottleClock {
    private struct State: Sendable {
        var now: Int64 = 0
        var alarms: [(time: Int64, body: @Sendable () -> Void)] = []
        var lastContext: IOContext?
    }

    private let state = Mutex(State())

    var now: Int64 { state.withLock { $0.now } }
    /// How many timers run.
    var alarmCount: Int { state.withLock { $0.alarms.count } }

    /// Where the timer that was set last runs.
    var lastContext: IOContext? { state.withLock { $0.lastContext } }

    func call(after nanoseconds: Int64, on context: IOContext?, _ body: @escaping @Sendable () -> Void) {
        state.withLock { state in
            state.alarms.append((state.now + nanoseconds, body))
            state.lastContext = context
        }
    }

    /// Goes to the next timer and lets it ring. False when there is none.
    func advance() -> Bool {
        let body = state.withLock { state -> (@Sendable () -> Void)? in
            guard let index = state.alarms.indices.min(by: { state.alarms[$0].time < state.alarms[$1].time }) else { return nil }
            let alarm = state.alarms.remove(at: index)
            state.now = max(state.now, alarm.time)
            return alarm.body
        }
        body?()
        return body != nil
    }

    func pass(_ nanoseconds: Int64) { state.withLock { $0.now += nanoseconds } }
}
