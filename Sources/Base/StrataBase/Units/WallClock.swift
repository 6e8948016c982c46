import Glibc

/// The time of day, for time stamps that people and other programs read. Measure durations with a clock that nobody sets.
package struct WallClock: Hashable, Sendable {
    /// Since the start of 1970, UTC.
    package let seconds: Int
    /// 0 to 999,999,999.
    package let nanoseconds: Int

    package init(seconds: Int, nanoseconds: Int) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }

    package static var now: WallClock {
        var time = timespec()
        // SAFETY: the pointer is valid for the time of the call; this clock exists on every Linux.
        _ = unsafe clock_gettime(CLOCK_REALTIME, &time)
        return WallClock(seconds: time.tv_sec, nanoseconds: time.tv_nsec)
    }
}
