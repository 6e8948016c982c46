public import CStrataLinux
import Synchronization

/// The clock of request accounting: the processor's counter, read in one instruction.
///
/// Ticks are turned into nanoseconds only when somebody asks. What one is worth is measured against the monotonic clock over the time that the
/// program has run so far, so that it becomes more exact by itself.
///
/// Public, unlike its neighbours: a function of another module is inlined only when it is, and this one is a single instruction.
public enum TickClock {
    @inlinable @inline(__always)
    public static var now: UInt64 { strata_ticks() }

    /// Where both clocks stood when the first accounting began.
    private static let start = (ticks: strata_ticks(), nanoseconds: strata_monotonic_now())
    /// Shorter measurements than this are not trusted, in nanoseconds.
    private static let shortestMeasurement: Int64 = 2_000_000

    /// Begins to measure; call it early, any number of times.
    package static func prepare() { _ = start }

    /// What a tick is worth in nanoseconds. Waits up to 2 ms in a program that has only just begun.
    package static var nanosecondsPerTick: Double {
        while true {
            let (ticks, nanoseconds) = (strata_ticks(), strata_monotonic_now())
            let elapsed = nanoseconds - start.nanoseconds
            if elapsed >= shortestMeasurement, ticks > start.ticks { return Double(elapsed) / Double(ticks - start.ticks) }
        }
    }
}
