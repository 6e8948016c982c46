/// Says how long to wait so that work goes on at no more than some bytes per second. Whole pieces of work are let go as they are and paid for
/// afterwards, so a piece may be larger than what a moment allows.
package struct RateLimit: Sendable {
    /// Bytes per second; 0 is no limit.
    package private(set) var speed: Int
    /// When everything that was let go is paid for, in nanoseconds of the caller's clock.
    private var paidUntil: Int64 = 0

    /// Time that was not used is good for this much work later, in nanoseconds.
    private static let credit: Int64 = 100_000_000

    package init(speed: Int = 0) { self.speed = speed }

    package mutating func setSpeed(_ speed: Int, now: Int64) {
        self.speed = speed
        // What was let go at the old speed is not paid for at it: nobody waits longer for having raised the limit.
        paidUntil = min(paidUntil, now)
    }

    /// Takes `byteCount` bytes of work into account that was done.
    package mutating func charge(_ byteCount: Int, now: Int64) {
        if speed == 0 { return }
        let cost = Double(byteCount) / Double(speed) * 1e9
        let start = max(paidUntil, now - Self.credit)
        paidUntil = cost >= Double(Int64.max / 2) ? .max / 2 : start + Int64(cost)
    }

    /// How long to wait from `now` before the next piece, in nanoseconds; 0 or less is not at all.
    package func wait(now: Int64) -> Int64 { speed == 0 ? 0 : paidUntil - now }
}
