internal import CStrataLinux
import Glibc
import StrataBase

/// Where a stream socket listens or connects to.
package enum HostAddress: Sendable, Hashable {
    case unix(path: String)
    /// `host` may be empty when listening: every address. `port` is a number or a service name; "0" lets the kernel choose.
    case tcp(host: String, port: String)
    /// A name in the kernel instead of the file system. Padded, it fills the whole address with zeroes, as older programs have it.
    case abstract(name: String, isPadded: Bool)
    /// A socket that this process was started with.
    case descriptor(Int32)
}

/// Which IP a TCP address may be resolved to.
package enum IPFamily: Int32, Sendable, Hashable {
    case any = 0
    case ipv4 = 4
    case ipv6 = 6
}

/// What is wanted of a TCP socket besides its address. Other sockets take no notice of it.
package struct TCPSettings: Sendable, Hashable {
    package var family = IPFamily.any
    /// The last of the ports to try when listening; nil: there is just one.
    package var lastPort: Int?
    /// The kernel probes an idle connection, so that a peer that has vanished is noticed.
    package var keepsAlive = false
    /// Multipath TCP, where the peer can do it too.
    package var usesMultipath = false
    /// Host and port are numbers: nothing is looked up.
    package var isNumeric = false

    package init() {}

    /// The same as the C functions take it.
    var cFlags: Int32 {
        Int32((isNumeric ? STRATA_TCP_NUMERIC : 0) | (usesMultipath ? STRATA_TCP_MULTIPATH : 0) | (keepsAlive ? STRATA_TCP_KEEP_ALIVE : 0))
    }
}

extension HostAddress: CustomStringConvertible {
    package var description: String {
        switch self {
        case .unix(let path): "unix:\(path)"
        case .tcp(let host, let port): "\(host.contains(":") ? "[\(host)]" : host):\(port)"
        case .abstract(let name, _): "unix:\(name),abstract=on"
        case .descriptor(let number): "fd:\(number)"
        }
    }
}

extension HostAddress {
    /// Whether the socket behind a descriptor waits for clients.
    /// - Throws: when it is no socket.
    static func isListening(_ number: Int32) throws(BlockError) -> Bool {
        let result = strata_is_listening(number)
        if result < 0 { throw BlockError(.invalidArgument, "File descriptor '\(number)' is not a socket") }
        return result > 0
    }

    static func checkConnected(_ number: Int32) throws(BlockError) {
        if try isListening(number) { throw BlockError(.invalidArgument, "File descriptor '\(number)' is a listening socket") }
    }

    /// Turns a result of connecting into a descriptor. The words are those that users of NBD know.
    func connected(_ result: Int32) throws(BlockError) -> Int32 {
        let name = if case .unix(let path) = self { path } else { description }
        return try descriptor(result, orElse: "Failed to connect to '\(name)'")
    }

    /// Turns a result of listening into a descriptor.
    func listening(_ result: Int32) throws(BlockError) -> Int32 { try descriptor(result, orElse: "Failed to listen on \(self)") }

    private func descriptor(_ result: Int32, orElse failure: String) throws(BlockError) -> Int32 {
        if result >= 0 { return result }
        if result <= -1000 + 100, let text = unsafe strata_address_error(result) {
            throw BlockError(.invalidArgument, "address resolution failed for \(self): \(unsafe String(cString: text))")
        }
        throw BlockError(errno: -result, failure)
    }
}
