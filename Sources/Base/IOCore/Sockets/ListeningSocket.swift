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

    /// Listens on one address. Of a name that stands for several, the first that can be listened on is taken.
    /// - Parameters:
    ///   - settings: for TCP addresses. With a last port, the first one that is free is taken.
    ///   - backlog: clients that may wait to be accepted.
    package convenience init(_ address: HostAddress, tcp settings: TCPSettings = TCPSettings(), backlog: Int = ListeningSocket.backlog) throws(BlockError) {
        guard case .tcp(let host, let service) = address else {
            self.init(try Self.open(address, backlog), address)
            return
        }
        let first = try Self.listen(host, service, settings, backlog, most: 1)[0]
        self.init(first.descriptor, address, port: first.port)
    }

    /// Listens on every address that `address` stands for: the name of a host may have several, and an empty one stands for all addresses of either IP.
    /// - Returns: at least one socket. Addresses that cannot be listened on are left out unless none can.
    package static func all(_ address: HostAddress, tcp settings: TCPSettings = TCPSettings(), backlog: Int = ListeningSocket.backlog) throws(BlockError) -> [ListeningSocket] {
        guard case .tcp(let host, let service) = address else { return [ListeningSocket(try open(address, backlog), address)] }
        return try listen(host, service, settings, backlog, most: 16).map { ListeningSocket($0.descriptor, address, port: $0.port) }
    }

    package static let backlog = 128

    private init(_ descriptor: Int32, _ address: HostAddress, port: Int = 0) {
        self.descriptor = descriptor
        self.address = address
        self.port = port
        if case .unix(let path) = address { file = FileStamp(of: path, followsLinks: false) } else { file = nil }
        Trace.socketListen(address: address.description, descriptor: Int(descriptor))
    }

    deinit { _ = strata_close(descriptor) }

    /// - Parameter address: not TCP.
    private static func open(_ address: HostAddress, _ backlog: Int) throws(BlockError) -> Int32 {
        switch address {
        case .unix(let path):
            // SAFETY: the string lives and stays NUL-terminated for the time of the call.
            var result = unsafe strata_listen_unix(path, path.utf8.count, Int32(STRATA_UNIX_PATH), Int32(backlog))
            if result == -EADDRINUSE, isAbandoned(path) {
                // A process that was killed leaves its socket's file behind.
                _ = unsafe unlink(path)
                result = unsafe strata_listen_unix(path, path.utf8.count, Int32(STRATA_UNIX_PATH), Int32(backlog))
            }
            return try address.listening(result)
        case .abstract(let name, let isPadded):
            let kind = Int32(isPadded ? STRATA_UNIX_PADDED : STRATA_UNIX_ABSTRACT)
            return try address.listening(unsafe strata_listen_unix(name, name.utf8.count, kind, Int32(backlog)))
        case .descriptor(let number):
            // One that is bound and does not listen yet is asked to; one that listens does not mind.
            if try !HostAddress.isListening(number), Glibc.listen(number, Int32(backlog)) < 0 { throw BlockError(errno: errno, "Failed to listen on fd socket") }
            _ = strata_set_nonblocking(number, 1)
            return number
        case .tcp: preconditionFailure("a name may stand for several addresses")
        }
    }

    /// - Returns: at least one socket, and at most `most`.
    private static func listen(_ host: String, _ service: String, _ settings: TCPSettings, _ backlog: Int, most: Int) throws(BlockError) -> [(descriptor: Int32, port: Int)] {
        var descriptors = [Int32](repeating: -1, count: most)
        var ports = descriptors
        // SAFETY: the strings live and stay NUL-terminated for the time of the call, and the arrays have the room that is said.
        let result = unsafe strata_listen_tcp(
            host, service, Int32(clamping: settings.lastPort ?? 0), settings.family.rawValue, settings.cFlags, Int32(backlog), &descriptors, &ports, Int32(most))
        let count = Int(try HostAddress.tcp(host: host, port: service).listening(result))
        return zip(descriptors, ports).prefix(count).map { ($0, Int($1)) }
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
