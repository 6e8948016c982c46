internal import CStrataLinux
import Glibc
package import StrataBase

/// A socket that waits for clients. Non-blocking: watch `descriptor` and call `accept` until it answers nil.
package final class ListeningSocket: Sendable {
    package let descriptor: Int32
    package let address: HostAddress
    /// The port in use, when the address is TCP.
    package let port: Int
    /// The file that this socket has made, to tell it from one that has taken its place since.
    private let file: FileStamp?

    /// - Parameters:
    ///   - settings: for TCP addresses. With a last port, the first one that is free is taken.
    ///   - backlog: clients that may wait to be accepted.
    package init(_ address: HostAddress, tcp settings: TCPSettings = TCPSettings(), backlog: Int = 128) throws(BlockError) {
        self.address = address
        var port: Int32 = 0
        switch address {
        case .unix(let path):
            // SAFETY: the string lives and stays NUL-terminated for the time of the call.
            var result = unsafe strata_listen_unix(path, path.utf8.count, Int32(STRATA_UNIX_PATH), Int32(backlog))
            if result == -EADDRINUSE, Self.isAbandoned(path) {
                // A process that was killed leaves its socket's file behind.
                _ = unsafe unlink(path)
                result = unsafe strata_listen_unix(path, path.utf8.count, Int32(STRATA_UNIX_PATH), Int32(backlog))
            }
            descriptor = try address.listening(result)
        case .abstract(let name, let isPadded):
            let kind = Int32(isPadded ? STRATA_UNIX_PADDED : STRATA_UNIX_ABSTRACT)
            descriptor = try address.listening(unsafe strata_listen_unix(name, name.utf8.count, kind, Int32(backlog)))
        case .descriptor(let number):
            // One that is bound and does not listen yet is asked to; one that listens does not mind.
            if try !HostAddress.isListening(number), Glibc.listen(number, Int32(backlog)) < 0 { throw BlockError(errno: errno, "Failed to listen on fd socket") }
            _ = strata_set_nonblocking(number, 1)
            descriptor = number
        case .tcp(let host, let service):
            descriptor = try address.listening(Self.listen(host, service, settings, backlog, &port))
        }
        self.port = Int(port)
        if case .unix(let path) = address { file = FileStamp(of: path, followsLinks: false) } else { file = nil }
        Trace.socketListen(address: address.description, descriptor: Int(descriptor))
    }

    deinit { _ = strata_close(descriptor) }

    /// - Returns: a descriptor, or what `HostAddress.descriptor` makes an error of.
    private static func listen(_ host: String, _ service: String, _ settings: TCPSettings, _ backlog: Int, _ port: inout Int32) -> Int32 {
        func attempt(_ service: String) -> Int32 {
            // SAFETY: the strings live and stay NUL-terminated for the time of the call.
            unsafe strata_listen_tcp(host, service, settings.family.rawValue, settings.cFlags, Int32(backlog), &port)
        }
        var result = attempt(service)
        guard let last = settings.lastPort, let first = Int(service), first < last else { return result }
        var next = first
        while result == -EADDRINUSE, next < last {
            next += 1
            result = attempt(String(next))
        }
        return result
    }

    /// Whether the file is a unix socket that nobody listens on.
    private static func isAbandoned(_ path: String) -> Bool {
        // The kernel gives the same answer for files that are no sockets, which are not ours to remove.
        var status = stat()
        guard unsafe lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return false }
        let result = unsafe strata_connect_unix(path, path.utf8.count, Int32(STRATA_UNIX_PATH))
        if result >= 0 { _ = strata_close(result) }
        return result == -ECONNREFUSED
    }

    /// The next client, or nil when none waits.
    /// - Throws: when the process is out of descriptors or memory; the caller waits a moment before it tries again.
    package func accept() throws(BlockError) -> ConnectedSocket? {
        let result = strata_accept(descriptor)
        if result == -EAGAIN || result == -EWOULDBLOCK { return nil }
        if result < 0 { throw BlockError(errno: -result, "accepting a client on \(address)") }
        if case .tcp = address { _ = strata_no_delay(result) }
        Trace.socketAccept(address: address.description, descriptor: Int(result))
        return ConnectedSocket(adopting: result)
    }

    /// Removes the file of a unix socket, so that the path can be used again; not one that somebody else has put there since.
    package func removeSocketFile() {
        guard case .unix(let path) = address, let file, let present = FileStamp(of: path, followsLinks: false), present.isSameFile(as: file) else { return }
        _ = unsafe unlink(path)
    }
}
