internal import CStrataLinux
import Glibc
package import StrataBase

/// Signals as events of an I/O context, and what every process of ours does about them.
package enum ProcessSignals {
    /// A peer that goes away must be an error on its own connection, not the end of the process. Call first thing in `main`.
    package static func ignoreBrokenPipes() { strata_ignore_sigpipe() }

    /// A file that may not grow as it should (`ulimit -f`) must be an error of the request, and not the end of a process that serves other disks too. Call
    /// first thing in `main`.
    package static func ignoreFileSizeLimit() { strata_ignore_sigxfsz() }

    /// SIGUSR1 and SIGIO, with which a program is told that something is the matter, mean nothing to it and do not end it.
    package static func ignoreRequestsForAttention() {
        for number in [SIGUSR1, SIGIO] { _ = signal(number, SIG_IGN) }
    }

    /// Calls `handler` on `context`'s thread for every SIGINT, SIGTERM and SIGHUP. Call on the context's own thread, before other threads
    /// are started: they inherit that these signals are blocked.
    package static func watchTermination(on context: IOContext, _ handler: @escaping @Sendable (Int32) -> Void) throws(BlockError) {
        try watch([SIGINT, SIGTERM, SIGHUP], on: context, handler)
    }

    /// Calls `handler` when the terminal has another size (SIGWINCH), and when the process goes on after it was stopped (SIGCONT). As `watchTermination`.
    package static func watchTerminal(on context: IOContext, _ handler: @escaping @Sendable (Int32) -> Void) throws(BlockError) {
        try watch([SIGWINCH, SIGCONT], on: context, handler)
    }

    private static func watch(_ signals: [Int32], on context: IOContext, _ handler: @escaping @Sendable (Int32) -> Void) throws(BlockError) {
        // SAFETY: the array lives for the call.
        let descriptor = unsafe strata_signal_descriptor(signals, Int32(signals.count))
        if descriptor < 0 { throw BlockError(errno: -descriptor, "watching for signals") }
        _ = try context.watch(descriptor, for: .readable, Watcher(descriptor: descriptor, handler: handler))
    }

    /// From now on SIGUSR1 is a question about progress, and does not end the process.
    package static func noteProgressQuestions() { strata_note_user_signal() }
    /// Whether somebody has asked since the last call. Any thread.
    package static func takeProgressQuestion() -> Bool { strata_take_user_signal() != 0 }

    /// What standard error is told when SIGINT, SIGTERM or SIGHUP ends the process; nil for nothing. Not together with `watchTermination`.
    package static func setLastWords(_ text: String?) {
        if let text {
            // SAFETY: the C function copies the text, which lives for the call.
            unsafe text.withCString { unsafe strata_set_last_words($0) }
        } else {
            strata_set_last_words(nil)
        }
    }

    private final class Watcher: EventSource {
        private let descriptor: Int32
        private let handler: @Sendable (Int32) -> Void

        init(descriptor: Int32, handler: @escaping @Sendable (Int32) -> Void) {
            self.descriptor = descriptor
            self.handler = handler
        }

        func ready(_ events: ReadyEvents) {
            while true {
                let signal = strata_take_signal(descriptor)
                if signal == 0 { return }
                handler(signal)
            }
        }
    }
}
