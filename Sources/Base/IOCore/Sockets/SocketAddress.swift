internal import CStrataLinux
import Glibc
import StrataBase

/// Where a stream socket listens or connects to.
package enum HostAddress: Sendable, Hashable {
    case unix(path: String)
    /// `host` may be empty when listening: every address. `port` is a number or a service name; "0" lets the kernel choose.
    case tcp(host: String, port: String)
}

extension HostAddress: CustomStringConvertible {
    package var description: String {
        switch self {
        case .unix(let path): "unix:\(path)"
        case .tcp(let host, let port): "\(host.contains(":") ? "[\(host)]" : host):\(port)"
        }
    }
}

extension HostAddress {
    /// Turns a result of the socket calls into a descriptor.
    func descriptor(_ result: Int32, _ what: String) throws(BlockError) -> Int32 {
        if result >= 0 { return result }
        if result <= -1000 + 100, let text = unsafe strata_address_error(result) {
            throw BlockError(.invalidArgument, "Failed to \(what) \(self): \(unsafe String(cString: text))")
        }
        throw BlockError(errno: -result, "Failed to \(what) \(self)")
    }
}
