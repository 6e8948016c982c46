internal import CStrataLinux
import Glibc
package import StrataBase

/// A file that holds the number of this process, locked for as long as the process uses it: a second one with the same file fails.
package final class PidFile: Sendable {
    private let path: String
    private let descriptor: Int32

    /// - Throws: when the file cannot be made, or another process has it.
    package init(creating path: String) throws(BlockError) {
        self.path = path
        while true {
            // SAFETY: the string lives and stays NUL-terminated for the time of the call.
            let file = unsafe open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0o644)
            if file < 0 { throw BlockError(errno: errno, "Could not create '\(path)'") }
            let result = strata_lock_bytes(file, 0, 1, 1)
            if result < 0 {
                close(file)
                throw BlockError(errno: -result, "Cannot lock pid file '\(path)'")
            }
            // Its last owner may have removed the name between our opening and locking it: a file without a name protects nothing.
            if Self.isSameFile(file, path) {
                descriptor = file
                break
            }
            close(file)
        }
        let text = Array("\(getpid())\n".utf8)
        do throws(BlockError) {
            if ftruncate(descriptor, 0) < 0 { throw BlockError(errno: errno, "Could not truncate '\(path)'") }
            try SmallFile.write(text, toDescriptor: descriptor)
        } catch {
            close(descriptor)
            throw error
        }
    }

    /// Removes the file, unless somebody has put another one there. Call once, last.
    package func remove() {
        // SAFETY: the string lives and stays NUL-terminated for the time of the call.
        if Self.isSameFile(descriptor, path) { _ = unsafe unlink(path) }
        close(descriptor)
    }

    private static func isSameFile(_ descriptor: Int32, _ path: String) -> Bool {
        var (open, named) = (stat(), stat())
        // SAFETY: both structures are ours, and the string stays NUL-terminated for the time of the call.
        guard unsafe fstat(descriptor, &open) == 0, unsafe stat(path, &named) == 0 else { return false }
        return open.st_ino == named.st_ino && open.st_dev == named.st_dev
    }
}
