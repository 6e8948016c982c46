package import IOCore
package import StorageSchema
package import StrataBase

// From addresses as QAPI writes them to addresses of the host.

extension HostAddress {
    /// - Throws: `.unsupported` for vsock, `.invalidArgument` for a descriptor that is no number.
    package init(_ address: SocketAddress) throws(BlockError) {
        switch address.branch {
        case .unix(let unix):
            self = unix.abstract == true ? .abstract(name: unix.path, isPadded: unix.tight == false) : .unix(path: unix.path)
        case .inet(let inet): self = .tcp(host: inet.host, port: inet.port)
        case .fd(let given): self = .descriptor(try given.number)
        case .vsock: throw BlockError(.unsupported, "Socket address type 'vsock' is not supported yet")
        }
    }
}

extension FdSocketAddress {
    /// The number of a descriptor that this process was started with. Nothing gives a descriptor a name.
    package var number: Int32 {
        get throws(BlockError) {
            guard let number = Int32(str) else { throw BlockError(.invalidArgument, "Unable to parse FD number \(str)") }
            return number
        }
    }
}

extension TCPSettings {
    /// What an address says besides host and port; nothing for other kinds of addresses.
    /// - Throws: `.invalidArgument` for what contradicts itself.
    package init(_ address: SocketAddress) throws(BlockError) {
        self.init()
        guard case .inet(let inet) = address.branch else { return }
        family =
            switch (inet.ipv4, inet.ipv6) {
            case (false?, false?): throw BlockError(.invalidArgument, "Cannot disable IPv4 and IPv6 at same time")
            case (true?, nil), (true?, false?), (nil, false?): .ipv4
            case (nil, true?), (false?, true?), (false?, nil): .ipv6
            case (true?, true?), (nil, nil): .any
            }
        if let last = inet.to {
            guard let first = Int(inet.port), first <= last else {
                throw BlockError(.invalidArgument, "Parameter 'to' expects the last of the ports from '\(inet.port)' on")
            }
            lastPort = Int(last)
        }
        keepsAlive = inet.keepAlive ?? false
        usesMultipath = inet.mptcp ?? false
        isNumeric = inet.numeric ?? false
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
