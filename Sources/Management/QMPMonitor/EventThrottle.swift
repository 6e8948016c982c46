import IOCore
package import QAPIRuntime

/// Which events may be sent only so often, and what tells one of them from another of the same name.
///
/// Source: the notes on rate limits in QEMU's QMP reference; observed on QEMU's own monitor.
package struct EventRateRule: Hashable, Sendable {
    /// Nanoseconds between two events of the same name and key.
    package var period: Int64
    /// The member whose value makes events differ; nil: every event of the name counts as the same.
    package var keyMember: String?

    package init(period: Int64, keyMember: String? = nil) {
        self.period = period
        self.keyMember = keyMember
    }

    private static let second: Int64 = 1_000_000_000

    /// What a guest or a broken disk can cause as often as it likes is told once a second.
    package static let standard: [String: EventRateRule] = [
        "BALLOON_CHANGE": EventRateRule(period: second),
        "BLOCK_IO_ERROR": EventRateRule(period: second, keyMember: "qom-path"),
        "HV_BALLOON_STATUS_REPORT": EventRateRule(period: second),
        "MEMORY_DEVICE_SIZE_CHANGE": EventRateRule(period: second, keyMember: "qom-path"),
        "QUORUM_FAILURE": EventRateRule(period: second),
        "QUORUM_REPORT_BAD": EventRateRule(period: second, keyMember: "node-name"),
        "RTC_CHANGE": EventRateRule(period: second),
        "VSERPORT_CHANGE": EventRateRule(period: second, keyMember: "id"),
        "WATCHDOG": EventRateRule(period: second),
    ]
}

/// Holds events back that come too fast: the first goes at once, of those that follow within the period the last one goes when it ends.
/// No clock of its own: the caller says what time it is.
package struct EventThrottle: Sendable {
    private struct Key: Hashable {
        let name: String
        let value: JSONValue?
    }

    private struct Waiting {
        /// When the period ends, in nanoseconds of the caller's clock.
        var deadline: Int64
        /// The latest event of the period.
        var held: JSONValue?
    }

    /// Events of names and keys that differ more than this at once are not held back: the table must not grow without bound.
    package static let capacity = 1024

    private let rules: [String: EventRateRule]
    private var waiting: [Key: Waiting] = [:]

    package init(rules: [String: EventRateRule] = EventRateRule.standard) { self.rules = rules }

    /// - Parameters:
    ///   - message: the event as it goes over the wire, time stamp included.
    ///   - now: nanoseconds.
    /// - Returns: whether to send it at once; false when it was taken in, to come out of `takeDue` unless a later one replaces it.
    package mutating func admits(_ message: JSONValue, named name: String, now: Int64) -> Bool {
        guard let rule = rules[name] else { return true }
        let key = Key(name: name, value: rule.keyMember.flatMap { message["data"]?[$0] })
        if let current = waiting[key], current.deadline > now {
            waiting[key]?.held = message
            return false
        }
        // An event that is still held although its time has come is older than this one, which takes its place.
        if waiting[key] == nil, waiting.count >= Self.capacity { return true }
        waiting[key] = Waiting(deadline: now + rule.period)
        return true
    }

    /// The events whose time has come. Each begins a new period; a period that brought nothing ends without another.
    package mutating func takeDue(now: Int64) -> [JSONValue] {
        var due: [(deadline: Int64, message: JSONValue)] = []
        for (key, entry) in waiting where entry.deadline <= now {
            guard let message = entry.held, let period = rules[key.name]?.period else {
                waiting[key] = nil
                continue
            }
            due.append((entry.deadline, message))
            waiting[key] = Waiting(deadline: now + period)
        }
        return due.sorted { $0.deadline < $1.deadline }.map(\.message)
    }

    /// When `takeDue` has something to do next.
    package var nextDeadline: Int64? { waiting.values.map(\.deadline).min() }
}

/// The time that a monitor goes by, for tests to replace.
package struct MonitorClock: Sendable {
    /// Nanoseconds since some moment in the past.
    package let now: @Sendable () -> Int64
    /// Calls a function on the monitor's thread after that many nanoseconds.
    package let callLater: @Sendable (_ nanoseconds: Int64, _ body: @escaping @Sendable () -> Void) -> Void

    package init(now: @escaping @Sendable () -> Int64, callLater: @escaping @Sendable (Int64, @escaping @Sendable () -> Void) -> Void) {
        self.now = now
        self.callLater = callLater
    }

    /// The time of the context's own timers.
    static func of(_ context: IOContext) -> MonitorClock {
        MonitorClock(now: { MonotonicTime.now }, callLater: { nanoseconds, body in _ = context.schedule(after: .nanoseconds(nanoseconds), body) })
    }
}
