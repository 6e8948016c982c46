internal import CStrataLinux

/// The clock of timers and rates: it never jumps, and reading it costs some tens of nanoseconds.
package enum MonotonicTime {
    /// Nanoseconds since some moment in the past.
    package static var now: Int64 { strata_monotonic_now() }
}
