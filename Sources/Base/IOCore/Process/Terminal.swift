internal import CStrataLinux
import Glibc
import Synchronization

/// The terminal on standard input.
package enum Terminal {
    /// Whether a person sits at both ends.
    package static var isInteractive: Bool { isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1 }

    /// How many columns standard output has; 80 when nobody knows.
    package static var columns: Int {
        let count = Int(strata_terminal_columns(STDOUT_FILENO))
        return count > 0 ? count : 80
    }

    private static let saved = Mutex<termios?>(nil)

    /// Keys come one by one, unechoed; Ctrl-C is a key. Undone by `restore`.
    package static func enterRawMode() {
        var settings = termios()
        // SAFETY: the pointer is valid for the time of the call.
        guard unsafe tcgetattr(STDIN_FILENO, &settings) == 0 else { return }
        saved.withLock { if $0 == nil { $0 = settings } }
        settings.c_iflag &= ~tcflag_t(BRKINT | ICRNL | INPCK | ISTRIP | IXON)
        settings.c_lflag &= ~tcflag_t(ECHO | ICANON | IEXTEN | ISIG)
        _ = unsafe tcsetattr(STDIN_FILENO, TCSADRAIN, &settings)
    }

    /// Stops the process and whoever else belongs to its job, as Ctrl-Z does outside of raw mode. Returns when it goes on, in raw mode again.
    package static func suspend() {
        restore()
        _ = kill(0, SIGTSTP)
        enterRawMode()
    }

    package static func restore() {
        guard var settings = saved.withLock({ saved in
            defer { saved = nil }
            return saved
        }) else { return }
        // SAFETY: as above.
        _ = unsafe tcsetattr(STDIN_FILENO, TCSADRAIN, &settings)
    }
}
