import Glibc
import IOCore
import Synchronization

/// What a second signal means: that somebody does not want to wait for the orderly end, which may hang on a disk or a server that does not answer.
///
/// Supervisors send several signals at once (systemd a SIGHUP beside the SIGTERM), so it counts only when it is a SIGINT or SIGTERM and the
/// first was a while ago.
final class Impatience: Sendable {
    /// How long after the first signal a second one is taken for a new decision, in nanoseconds.
    private static let grace: Int64 = 1_000_000_000
    private let firstTime = Mutex<Int64?>(nil)

    /// Ends the process at once, with status 1, when this signal is one too many.
    func heard(_ signal: Int32) {
        let now = MonotonicTime.now
        let isSecond = firstTime.withLock { first in
            guard let began = first else {
                first = now
                return false
            }
            return signal != SIGHUP && now - began >= Self.grace
        }
        guard isSecond else { return }
        StandardStreams.warn("ended by a second signal: what was not written out yet is lost")
        _exit(1)
    }
}
