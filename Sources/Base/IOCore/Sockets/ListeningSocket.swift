internal import CStrataLinux
import Glibc
package import StrataBase

/// A socket that waits for clients. Non-blocking: watch `descriptor` and call `accept` until it answers nil.
package final class ListeningSocket: Sendable {
    package let descriptor: Int32
    package let address: HostAddress
    /// The port in use, when the address is TCP.
    package let port: Int

    /// - Parameter backlog: clients that may wait to be accepted.
    package init(_ address: HostAddress, backlog: Int = 128) throws(BlockError) {
        self.address = address
        var port: Int32 = 0
        switch address {
        case .unix(let path):
            descriptor = unsafe try address.descriptor(strata_listen_unix(path, path.utf8.count, Int32(backlog)), "listen on")
        case .tcp(let host, let service):
            descriptor = try address.descriptor(unsafe strata_listen_tcp(host, service, Int32(backlog), &port), "listen on")
        }
        self.port = Int(port)
    }

    deinit { _ = strata_close(descriptor) }

    /// The next client, or nil when none waits.
    /// - Throws: when the process is out of descriptors or memory; the caller waits a moment before it tries again.
    package func accept() throws(BlockError) -> ConnectedSocket? {
        let result = strata_accept(descriptor)
        if result == -EAGAIN || result == -EWOULDBLOCK { return nil }
        if result < 0 { throw BlockError(errno: -result, "accepting a client on \(address)") }
        if case .tcp = address { _ = strata_no_delay(result) }
        return ConnectedSocket(adopting: result)
    }

    /// Removes the file of a unix socket, so that the path can be used again.
    package func removeSocketFile() {
        if case .unix(let path) = address { _ = unsafe unlink(path) }
    }
}
