import Glibc

/// The end of the process on the spot: nothing is flushed and nothing is closed.
///
/// Only for what promises exactly that: blkverify, for which every further write would be a lie, and commands that simulate a crash.
package enum ProcessEnd {
    package static func now(exitCode: Int32) -> Never { _exit(exitCode) }

    /// Ends with SIGABRT.
    package static func abort() -> Never {
        // Without the report of a crash that is none.
        _ = signal(SIGABRT, SIG_DFL)
        Glibc.abort()
    }

    /// Sends the process a signal; 0 sends none.
    package static func raise(_ number: Int32) {
        // At a terminal the Swift runtime reports these as crashes, and asks what to do.
        if [SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGBUS, SIGSEGV].contains(number) { _ = signal(number, SIG_DFL) }
        _ = Glibc.raise(number)
    }
}
