import Glibc
package import StrataBase

/// Opening what is no disk image but is read or written from front to back: files, pipes, terminals.
package enum StreamFiles {
    package enum Access: Sendable, Hashable {
        case reading
        /// Made if need be. What was in it goes unless `appends`.
        case writing(appends: Bool)
        /// An existing file, for both. A named pipe that is open in both directions never ends and needs nobody at its other side.
        case both
    }

    /// - Throws: the system's refusal, naming the file.
    package static func open(_ path: String, for access: Access) throws(BlockError) -> ConnectedSocket {
        let flags: Int32 =
            switch access {
            case .reading: O_RDONLY
            case .writing(let appends): O_WRONLY | O_CREAT | (appends ? O_APPEND : O_TRUNC)
            case .both: O_RDWR
            }
        if HostPath.isCutOff(path) { throw BlockError(errno: ENOENT, "Could not open '\(path)'") }
        // SAFETY: the string lives and stays NUL-terminated for the time of the call.
        let descriptor = unsafe Glibc.open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0o666)
        if descriptor < 0 { throw BlockError(errno: errno, "Could not open '\(path)'") }
        return ConnectedSocket(adopting: descriptor)
    }
}
