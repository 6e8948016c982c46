internal import CStrataLinux
package import StrataBase

/// Going into the background: the parent waits for `announceReady` and then exits with status 0, or with 1 if the child ends before.
package struct Daemonization: Sendable {
    private let descriptor: Int32

    /// Forks. Returns in the child only. Call before any thread exists.
    package init() throws(BlockError) {
        descriptor = strata_daemonize()
        if descriptor < 0 { throw BlockError(errno: -descriptor, "going into the background") }
    }

    /// Detaches from the terminal's streams and lets the parent exit.
    package func announceReady() { strata_daemon_ready(descriptor) }
}
