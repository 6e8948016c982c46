internal import CStrataLinux
import Glibc
package import StrataBase

/// A terminal whose other side is a program: the controlling side, and the name of the other.
package final class PseudoTerminal: Sendable {
    package let socket: ConnectedSocket
    /// What the other program opens: "/dev/pts/3".
    package let path: String

    /// - Throws: when the system has no terminal to give.
    package init() throws(BlockError) {
        var name = [CChar](repeating: 0, count: 128)
        // SAFETY: the function writes at most `count` bytes, a terminating zero included.
        let descriptor = unsafe name.withUnsafeMutableBufferPointer { unsafe strata_open_terminal($0.baseAddress, $0.count) }
        if descriptor < 0 { throw BlockError(errno: -descriptor, "Failed to create PTY") }
        socket = ConnectedSocket(adopting: descriptor)
        path = String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        makeRaw()
    }

    /// Bytes pass as they are: no echo, no line editing.
    private func makeRaw() {
        // SAFETY: the string lives for the time of the call.
        let other = unsafe Glibc.open(path, O_RDWR | O_NOCTTY | O_CLOEXEC)
        guard other >= 0 else { return }
        defer { close(other) }
        var settings = termios()
        // SAFETY: the structure is ours.
        guard unsafe tcgetattr(other, &settings) == 0 else { return }
        unsafe cfmakeraw(&settings)
        _ = unsafe tcsetattr(other, TCSAFLUSH, &settings)
    }

    /// Whether a program has the other side open. Never waits.
    package var isConnected: Bool {
        var descriptor = pollfd(fd: socket.descriptor, events: Int16(POLLOUT), revents: 0)
        // SAFETY: the structure is ours.
        let count = unsafe poll(&descriptor, 1, 0)
        return count >= 0 && descriptor.revents & Int16(POLLHUP) == 0
    }

    /// Makes a symbolic link to the other side.
    package func link(at link: String) throws(BlockError) {
        if HostPath.isCutOff(link) { throw BlockError(errno: ENOENT, "Failed to create PTY symlink '\(link)'") }
        // SAFETY: the strings live for the time of the call.
        if unsafe symlink(path, link) < 0 { throw BlockError(errno: errno, "Failed to create PTY symlink '\(link)'") }
    }
}

/// Links that this process has made.
package enum SymbolicLinks {
    /// Removes a link if it still points there.
    package static func remove(_ link: String, to target: String) {
        var contents = [UInt8](repeating: 0, count: 4096)
        // SAFETY: the function writes at most `count` bytes into the array.
        let count = unsafe contents.withUnsafeMutableBytes { bytes in
            guard let start = bytes.baseAddress else { return -1 }
            return unsafe readlink(link, start, bytes.count)
        }
        guard count >= 0, String(decoding: contents.prefix(count), as: UTF8.self) == target else { return }
        _ = unsafe unlink(link)
    }
}
