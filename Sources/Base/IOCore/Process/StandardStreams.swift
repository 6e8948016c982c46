import Glibc
import StrataBase
package import Synchronization

/// The process's standard output and error, without a C stream between.
package enum StandardStreams {
    /// The name that messages begin with: the tool's own, or that of the link it was called by.
    package static let programName = Mutex("strata")

    /// Occupies those of the three numbers that the program was started without, before anything else is opened: the first file opened would get one,
    /// and a warning would go into a disk image. Using such a stream fails as it would have failed.
    package static func occupyClosed() {
        for number in STDIN_FILENO...STDERR_FILENO where fcntl(number, F_GETFD) < 0 {
            // SAFETY: the string lives for the time of the call. The lowest free number is taken: this one.
            _ = unsafe open("/dev/null", number == STDIN_FILENO ? O_WRONLY : O_RDONLY)
        }
    }

    /// Writes all of `text` to standard output.
    /// - Returns: false when it could not be written: the disk is full. That the reader of a pipe has gone is no failure, he has seen enough.
    @discardableResult
    package static func print(_ text: String) -> Bool { write(text, to: STDOUT_FILENO) }

    /// Writes all of `text` to standard error.
    package static func printError(_ text: String) { _ = write(text, to: STDERR_FILENO) }

    /// One line on standard error: `program: warning: message`.
    package static func warn(_ message: String) {
        let name = programName.withLock { $0 }
        printError("\(name): warning: \(message)\n")
    }

    private static func write(_ text: String, to descriptor: Int32) -> Bool {
        var text = text
        return text.withUTF8 { bytes in
            var done = 0
            while done < bytes.count {
                // SAFETY: the range lies inside `bytes`.
                let count = unsafe Glibc.write(descriptor, bytes.baseAddress.map { unsafe $0 + done }, bytes.count - done)
                if count > 0 {
                    done += count
                } else if count < 0, errno == EAGAIN {
                    // Somebody has made it non-blocking, a monitor on standard input and output for one: wait for the reader all the same.
                    var question = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                    // SAFETY: one structure, valid for the time of the call.
                    _ = unsafe poll(&question, 1, -1)
                } else if count < 0, errno != EINTR {
                    return errno == EPIPE
                }
            }
            return true
        }
    }
}
