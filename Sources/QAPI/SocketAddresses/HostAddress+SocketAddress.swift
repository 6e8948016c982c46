package import IOCore
package import StorageSchema
package import StrataBase

// From addresses as QAPI writes them to addresses of the host.

extension HostAddress {
    /// - Throws: `.unsupported` for kinds of addresses that are not there yet; they are named.
    package init(_ address: SocketAddress) throws(BlockError) {
        switch address.branch {
        case .unix(let unix):
            self = unix.abstract == true ? .abstract(name: unix.path, isPadded: unix.tight == false) : .unix(path: unix.path)
        case .inet(let inet):
            // Ignoring one of these would listen somewhere else than was asked for.
            let unsupported = [("to", inet.to != nil), ("ipv4", inet.ipv4 != nil), ("ipv6", inet.ipv6 != nil), ("mptcp", inet.mptcp == true), ("keep-alive", inet.keepAlive == true)]
            if let option = unsupported.first(where: \.1) { throw BlockError(.unsupported, "Parameter '\(option.0)' of inet addresses is not supported yet") }
            self = .tcp(host: inet.host, port: inet.port)
        case .vsock: throw BlockError(.unsupported, "Socket address type 'vsock' is not supported yet")
        case .fd: throw BlockError(.unsupported, "Socket address type 'fd' is not supported yet")
        }
    }
}

extension SocketAddress {
    /// The same address in the form that newer commands take, without a level in between.
    package init(_ address: SocketAddressLegacy) {
        switch address.branch {
        case .inet(let wrapper): self.init(.inet(wrapper.data))
        case .unix(let wrapper): self.init(.unix(wrapper.data))
        case .vsock(let wrapper): self.init(.vsock(wrapper.data))
        case .fd(let wrapper): self.init(.fd(wrapper.data))
        }
    }
}
