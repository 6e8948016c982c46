/// The six buckets of a group and what a request costs in each. A value: time is what the caller says it is.
package struct ThrottleMeter: Sendable {
    package enum Direction: Int, Sendable, CaseIterable { case read, write }

    package let settings: ThrottleSettings
    private var buckets: [LeakyBucket]
    /// Nanoseconds on the clock of the group.
    private var lastLeak: Int64

    package init(_ settings: ThrottleSettings, now: Int64) {
        self.settings = settings
        buckets = settings.limits.map { LeakyBucket(average: Double($0.average), maximum: Double($0.maximum), burstLength: Double($0.length)) }
        lastLeak = now
    }

    /// Whether requests of that direction are counted at all.
    package func limits(_ direction: Direction) -> Bool { Self.kinds(direction).contains { buckets[$0.rawValue].isLimited } }

    /// How long the next request has to wait, in nanoseconds.
    package mutating func waitingTime(_ direction: Direction, now: Int64) -> Int64 {
        let elapsed = Double(max(0, now - lastLeak)) / 1e9
        lastLeak = max(now, lastLeak)
        for index in buckets.indices { buckets[index].leak(seconds: elapsed) }
        let seconds = Self.kinds(direction).map { buckets[$0.rawValue].waitingTime }.max() ?? 0
        // Rounded up, so that after the wait it is over.
        return Int64(min(seconds * 1e9, 1e18).rounded(.up))
    }

    /// Counts a request that starts.
    package mutating func add(_ byteCount: Int, _ direction: Direction) {
        let requests = settings.requestSize > 0 ? max(1, Double(byteCount) / Double(settings.requestSize)) : 1
        for kind in Self.kinds(direction) {
            let counted = kind == .requestsTotal || kind == .requestsRead || kind == .requestsWrite ? requests : Double(byteCount)
            buckets[kind.rawValue].add(counted)
        }
    }

    private static func kinds(_ direction: Direction) -> [ThrottleSettings.Kind] {
        direction == .read ? [.bytesTotal, .bytesRead, .requestsTotal, .requestsRead] : [.bytesTotal, .bytesWrite, .requestsTotal, .requestsWrite]
    }
}
