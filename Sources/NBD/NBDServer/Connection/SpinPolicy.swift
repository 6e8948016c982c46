/// Decides whether the loop should look for the next request for a moment before it falls asleep.
///
/// A client that sends one request at a time and waits for each answer gets nearly twice the requests per second when the server does not fall
/// asleep between them. A client that is idle, or slow, must not cost a processor anything: looking is stopped after a few times in vain, and
/// taken up again when requests come so soon after each other that it would have paid.
package struct SpinPolicy {
    /// In vain this many times in a row: stop.
    private static let patience = 3
    /// A request that woke the loop within this many nanoseconds would have been found by looking.
    private static let soon = ConnectionLimits.spinNanoseconds * 3 / 2

    package init() {}

    private var credit = 0
    private var turnEnded: Int64 = 0

    /// The connection was woken by its socket, not found by looking.
    package mutating func wokenBySocket(now: Int64) {
        if turnEnded != 0, now - turnEnded < Self.soon { credit = Self.patience } else if credit > 0 { credit -= 1 }
    }

    /// Looking has found a request.
    package mutating func foundBySpinning() { credit = Self.patience }

    /// A turn is over. True to look for more before sleeping.
    /// - Parameter isSingle: the turn had exactly one request, which is answered.
    package mutating func turnIsOver(isSingle: Bool, now: Int64) -> Bool {
        turnEnded = isSingle ? now : 0
        return isSingle && credit > 0
    }
}
