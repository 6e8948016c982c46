internal import CStrataLinux
import Glibc
package import StrataBase

/// A copy of this process that may take so much memory and so much time, and no more.
///
/// The limits are the kernel's and the parent's: they hold whatever the child is doing, a loop that never waits included.
package enum LimitedProcess {
    package enum Ending: Sendable, Hashable {
        case exited(Int32)
        case signalled(Int32)
        /// It was killed when its time was over.
        case late
    }

    /// Goes on as two processes. Call before any thread is started.
    /// - Parameters:
    ///   - memory: bytes of private writable memory (RLIMIT_DATA); nil for no limit.
    ///   - milliseconds: from now on; nil for no limit.
    /// - Returns: nil in the child, which does the work; in the parent, how the child has ended.
    package static func fork(memory: Int?, milliseconds: Int?) throws(BlockError) -> Ending? {
        var errors: Int32 = -1
        // SAFETY: the pointer is valid for the time of the call.
        let child = unsafe strata_fork_limited(UInt64(memory ?? 0), &errors)
        if child < 0 { throw BlockError(errno: -child, "starting a limited process") }
        if child == 0 { return nil }
        var status: Int32 = 0
        // SAFETY: the pointer is valid for the time of the call.
        let result = unsafe strata_wait_limited(child, errors, milliseconds.map(Int64.init) ?? -1, &status)
        if result < 0 { throw BlockError(errno: -result, "waiting for a limited process") }
        if result == 1 { return .late }
        let signal = status & 0x7f
        return signal == 0 ? .exited(status >> 8 & 0xff) : .signalled(signal)
    }
}
