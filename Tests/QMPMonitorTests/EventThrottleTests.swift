import IOCore
import QAPIRuntime
import QMPMonitor
import StorageSchema
import StrataTesting
import Synchronization
import Testing

private let second: Int64 = 1_000_000_000

private func bad(_ node: String, _ number: Int) -> JSONValue {
    ["event": "QUORUM_REPORT_BAD", "data": ["node-name": .string(node), "sector-num": .integer(number)]]
}

/// A clock that stands still until it is told to go on.
final class ManualClock: Sendable {
    private struct State {
        var now: Int64 = 0
        var calls: [(deadline: Int64, body: @Sendable () -> Void)] = []
    }

    private let state = Mutex(State())

    var clock: MonitorClock {
        MonitorClock(
            now: { self.state.withLock { $0.now } },
            callLater: { delay, body in self.state.withLock { $0.calls.append(($0.now + delay, body)) } })
    }

    /// Goes on, and makes the calls whose time comes on the way.
    func advance(by nanoseconds: Int64) {
        let end = state.withLock { $0.now + nanoseconds }
        while true {
            let body = state.withLock { state -> (@Sendable () -> Void)? in
                guard let index = state.calls.indices.min(by: { state.calls[$0].deadline < state.calls[$1].deadline }), state.calls[index].deadline <= end
                else { return nil }
                let call = state.calls.remove(at: index)
                state.now = max(state.now, call.deadline)
                return call.body
            }
            guard let body else { break }
            body()
        }
        state.withLock { $0.now = end }
    }

    var pendingCount: Int { state.withLock { $0.calls.count } }
}

/// A throttle that expectations can call.
private final class Throttle {
    private var throttle: EventThrottle
    init(_ throttle: EventThrottle = EventThrottle()) { self.throttle = throttle }
    func admits(_ message: JSONValue, named name: String, now: Int64) -> Bool { throttle.admits(message, named: name, now: now) }
    func takeDue(now: Int64) -> [JSONValue] { throttle.takeDue(now: now) }
    var nextDeadline: Int64? { throttle.nextDeadline }
}

@Suite("rate limits of events")
struct EventThrottleTests {
    @Test("the first goes at once, of those within the period the last one goes at its end, and then the period begins anew")
    func lastOfPeriod() {
        let throttle = Throttle()
        #expect(throttle.admits(bad("a", 1), named: "QUORUM_REPORT_BAD", now: 0))
        #expect(!throttle.admits(bad("a", 2), named: "QUORUM_REPORT_BAD", now: 10))
        #expect(!throttle.admits(bad("a", 3), named: "QUORUM_REPORT_BAD", now: second - 1))
        #expect(throttle.takeDue(now: second - 1).isEmpty && throttle.nextDeadline == second)
        #expect(throttle.takeDue(now: second) == [bad("a", 3)])
        #expect(!throttle.admits(bad("a", 4), named: "QUORUM_REPORT_BAD", now: second + 1))
        #expect(throttle.takeDue(now: 2 * second) == [bad("a", 4)])
        #expect(throttle.takeDue(now: 3 * second).isEmpty && throttle.nextDeadline == nil)
        #expect(throttle.admits(bad("a", 5), named: "QUORUM_REPORT_BAD", now: 3 * second))
    }

    @Test("events of other nodes and of other names have periods of their own, and most names have none")
    func keys() {
        let throttle = Throttle()
        #expect(throttle.admits(bad("a", 1), named: "QUORUM_REPORT_BAD", now: 0) && throttle.admits(bad("b", 1), named: "QUORUM_REPORT_BAD", now: 0))
        #expect(throttle.admits(["data": ["sector-num": 1]], named: "QUORUM_FAILURE", now: 0))
        #expect(!throttle.admits(["data": ["sector-num": 2]], named: "QUORUM_FAILURE", now: 0))
        for _ in 0..<5 { #expect(throttle.admits(["data": ["id": "j"]], named: "JOB_STATUS_CHANGE", now: 0)) }
    }

    /// Those whose description in QEMU's QMP reference says that they are limited, and what QEMU tells apart.
    @Test("the events that QEMU's reference calls rate-limited are limited to one a second for each device, and no others", arguments: [
        ("BALLOON_CHANGE", nil), ("BLOCK_IO_ERROR", "qom-path"), ("HV_BALLOON_STATUS_REPORT", nil), ("MEMORY_DEVICE_SIZE_CHANGE", "qom-path"),
        ("QUORUM_FAILURE", nil), ("QUORUM_REPORT_BAD", "node-name"), ("RTC_CHANGE", nil), ("VSERPORT_CHANGE", "id"), ("WATCHDOG", nil),
        ("BLOCK_WRITE_THRESHOLD", "-"), ("BLOCK_IMAGE_CORRUPTED", "-"), ("BLOCK_EXPORT_DELETED", "-"), ("BLOCK_JOB_COMPLETED", "-"), ("JOB_STATUS_CHANGE", "-"),
    ] as [(String, String?)])
    func rules(event: String, key: String?) {
        let throttle = Throttle()
        func message(_ value: String, _ number: Int) -> JSONValue {
            let data: JSONValue = if let key { [key: .string(value), "number": .integer(number)] } else { ["number": .integer(number)] }
            return ["event": .string(event), "data": data]
        }
        let isLimited = key != "-"
        #expect(throttle.admits(message("a", 1), named: event, now: 0))
        #expect(throttle.admits(message("a", 2), named: event, now: second - 1) == !isLimited)
        // Another device is no repetition, where devices are told apart.
        #expect(throttle.admits(message("b", 3), named: event, now: second - 1) == (!isLimited || key != nil))
        #expect(throttle.takeDue(now: second) == (isLimited ? [message(key == nil ? "b" : "a", key == nil ? 3 : 2)] : []))
        #expect(throttle.admits(message("a", 4), named: event, now: 3 * second))
    }

    @Test("keys without number do not grow the table without bound")
    func bounded() {
        let throttle = Throttle()
        for number in 0..<5 * EventThrottle.capacity { #expect(throttle.admits(bad("n\(number)", 0), named: "QUORUM_REPORT_BAD", now: 0)) }
        #expect(!throttle.admits(bad("n0", 1), named: "QUORUM_REPORT_BAD", now: 1))
        #expect(throttle.admits(bad("n\(5 * EventThrottle.capacity - 1)", 1), named: "QUORUM_REPORT_BAD", now: 1))
    }

    @Test("whatever the arrivals are: never two within a period, and the last one always gets through", arguments: 1...20)
    func randomArrivals(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let throttle = Throttle(EventThrottle(rules: ["E": EventRateRule(period: 100, keyMember: "k")]))
        var (now, sent, last): (Int64, [String: [Int64]], [String: JSONValue]) = (0, [:], [:])
        var lastSent: [String: JSONValue] = [:]
        func message(_ key: String, _ number: Int) -> JSONValue { ["data": ["k": .string(key), "number": .integer(number)]] }
        func note(_ message: JSONValue) {
            guard let key = message["data"]?["k"]?.string else { return }
            sent[key, default: []].append(now)
            lastSent[key] = message
        }
        for number in 0..<500 {
            let next = now + Int64.random(in: 0...70, using: &random)
            while let deadline = throttle.nextDeadline, deadline <= next {
                now = deadline
                throttle.takeDue(now: now).forEach(note)
            }
            now = next
            let key = ["a", "b", "c"][Int.random(in: 0..<3, using: &random)]
            last[key] = message(key, number)
            if throttle.admits(message(key, number), named: "E", now: now) { note(message(key, number)) }
        }
        while let deadline = throttle.nextDeadline {
            now = deadline
            throttle.takeDue(now: now).forEach(note)
        }
        for times in sent.values { for (a, b) in zip(times, times.dropFirst()) { #expect(b - a >= 100, "seed \(seed)") } }
        #expect(lastSent == last, "seed \(seed)")
    }
}
