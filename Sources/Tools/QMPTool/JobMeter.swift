import QAPIRuntime
import StrataBase

/// How one job gets on: its rate and the time that is left, from what `query-jobs` says of it now and then.
struct JobMeter: Sendable {
    let id: String
    private(set) var type = ""
    private(set) var status = ""
    private(set) var done = 0
    private(set) var total = 0
    /// Of the job, in units of its progress per second (bytes, for what copies); nil until two looks tell.
    private(set) var rate: Double?
    private var seen: Double?
    /// How many looks in a row have found this status.
    private var looks = 0

    /// How much a new look counts against those before: the rate follows in a few seconds and does not jump.
    private static let weight = 0.3

    init(id: String) { self.id = id }

    /// - Parameters:
    ///   - job: as `query-jobs` has it.
    ///   - now: seconds on a clock that does not go back.
    mutating func note(_ job: JSONValue, now: Double) {
        type = job["type"]?.string ?? ""
        let current = job["status"]?.string ?? ""
        looks = current == status ? looks + 1 : 1
        status = current
        let (reached, all) = (job["current-progress"]?.integer ?? 0, job["total-progress"]?.integer ?? 0)
        if let seen, now > seen {
            let moment = max(0, Double(reached) - Double(done)) / (now - seen)
            rate = rate.map { $0 + (moment - $0) * Self.weight } ?? moment
        }
        (done, total, seen) = (reached, all, now)
    }

    /// Whether nothing happens until its user does something, or it is over.
    /// A job that finalizes itself is pending for a moment only.
    var waitsForUser: Bool { status == "pending" ? looks > 1 : ["paused", "ready", "standby", "concluded", "null"].contains(status) }

    /// Seconds; nil when nobody can tell.
    var left: Double? {
        guard let rate, rate > 0, total >= done, !waitsForUser else { return nil }
        return (Double(total) - Double(done)) / rate
    }

    /// From 0 to 1.
    var share: Double { total <= 0 ? (waitsForUser ? 1 : 0) : min(1, max(0, Double(done)) / Double(total)) }

    /// `j0 mirror [#####     ]  50.0%  1.2 GiB/s  0:42 left`, or the status instead of what is left.
    func line(columns: Int) -> String {
        let bar = 20
        let filled = Int(share * Double(bar))
        var text = "\(id) \(type) [" + String(repeating: "#", count: filled) + String(repeating: " ", count: bar - filled) + "]"
        let tenths = Int(share * 1000)
        text += " \(tenths / 10).\(tenths % 10)%"
        if let rate, !waitsForUser { text += "  \(Self.size(rate))/s" }
        if let left { text += "  \(Self.time(left)) left" } else { text += "  \(status)" }
        return String(text.prefix(max(20, columns - 1)))
    }

    /// One object on one line.
    var json: String {
        var object = JSONObject()
        object["id"] = .string(id)
        object["type"] = .string(type)
        object["status"] = .string(status)
        object["done"] = .integer(done)
        object["total"] = .integer(total)
        if let rate { object["rate"] = .integer(Self.whole(rate)) }
        if let left { object["left"] = .integer(Self.whole(left.rounded(.up))) }
        return JSONValue.object(object).text()
    }

    /// Numbers come from a server: one that no integer holds must do no harm.
    private static func whole(_ number: Double) -> Int { Int(min(number, 9e18)) }

    /// Bytes in the unit that suits them, with one decimal.
    static func size(_ bytes: Double) -> String {
        var (value, unit) = (bytes, 0)
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        while value >= 1024, unit < units.count - 1 { (value, unit) = (value / 1024, unit + 1) }
        let tenths = whole((value * 10).rounded())
        return unit == 0 ? "\(tenths / 10) B" : "\(tenths / 10).\(tenths % 10) \(units[unit])"
    }

    /// `0:05`, `12:34`, `3:00:00`; more than a thousand hours are not worth counting.
    static func time(_ seconds: Double) -> String {
        guard seconds < 3_600_000 else { return ">1000 h" }
        let all = Int(seconds.rounded(.up))
        func two(_ number: Int) -> String { number < 10 ? "0\(number)" : "\(number)" }
        let (hours, minutes, rest) = (all / 3600, all / 60 % 60, all % 60)
        return hours > 0 ? "\(hours):\(two(minutes)):\(two(rest))" : "\(minutes):\(two(rest))"
    }
}
