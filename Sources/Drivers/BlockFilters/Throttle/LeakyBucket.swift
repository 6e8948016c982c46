/// One limit of a throttle group: a bucket that requests fill and that leaks at the rate that is allowed.
///
/// A value without a clock: the caller says how much time has passed. The rules are those of QEMU's documentation of throttling:
/// - it leaks `average` units per second;
/// - without a burst rate it holds a tenth of a second's worth, so that the pace is even;
/// - with one it holds `maximum * burstLength`; a burst of more than a second goes through a second bucket, which leaks `maximum` units per
///   second and holds a tenth of that, so that a burst has an even pace too;
/// - a request may start while no bucket is more than full, and then adds all of its units, so that a request of any size gets its turn.
package struct LeakyBucket: Hashable, Sendable {
    /// Units per second in the long run; 0 means that there is no limit.
    package var average: Double
    /// Units per second in a burst; 0 means that there are no bursts.
    package var maximum: Double
    /// Seconds; at least 1.
    package var burstLength: Double
    package private(set) var level = 0.0
    package private(set) var burstLevel = 0.0

    package init(average: Double, maximum: Double = 0, burstLength: Double = 1) {
        self.average = average
        self.maximum = maximum
        self.burstLength = burstLength
    }

    package var isLimited: Bool { average > 0 }

    /// Lets time pass.
    package mutating func leak(seconds: Double) {
        level = max(0, level - average * seconds)
        burstLevel = max(0, burstLevel - maximum * seconds)
    }

    package mutating func add(_ units: Double) {
        if !isLimited { return }
        level += units
        if burstLength > 1 { burstLevel += units }
    }

    /// How long the next request has to wait, in seconds; 0 when it may start now.
    package var waitingTime: Double {
        if !isLimited { return 0 }
        let capacity = maximum > 0 ? maximum * burstLength : average / 10
        let wait = max(0, level - capacity) / average
        let burstWait = burstLength > 1 ? max(0, burstLevel - maximum / 10) / maximum : 0
        return max(wait, burstWait)
    }
}
