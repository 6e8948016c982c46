package import IOCore
package import StorageSchema
package import StrataBase

// From what QAPI and the command line say to what the server takes.

extension NBDServer.Configuration {
    /// What `--nbd-server` says.
    package init(_ options: NbdServerOptions) throws(BlockError) {
        try self.init(
            HostAddress(options.addr), handshakeMaxSeconds: options.handshakeMaxSeconds, maxConnections: options.maxConnections,
            usesTLS: options.tlsCreds != nil || options.tlsAuthz != nil)
    }

    /// What `nbd-server-start` says.
    package init(_ options: NbdServerOptionsLegacy) throws(BlockError) {
        let address =
            switch options.addr.branch {
            case .inet(let wrapper): SocketAddress(.inet(wrapper.data))
            case .unix(let wrapper): SocketAddress(.unix(wrapper.data))
            case .vsock(let wrapper): SocketAddress(.vsock(wrapper.data))
            case .fd(let wrapper): SocketAddress(.fd(wrapper.data))
            }
        try self.init(
            HostAddress(address), handshakeMaxSeconds: options.handshakeMaxSeconds, maxConnections: options.maxConnections,
            usesTLS: options.tlsCreds != nil || options.tlsAuthz != nil)
    }

    /// Zero means "no limit" for both numbers.
    private init(_ address: HostAddress, handshakeMaxSeconds: UInt32?, maxConnections: UInt32?, usesTLS: Bool) throws(BlockError) {
        // Never serve in clear what was meant to be encrypted.
        if usesTLS { throw BlockError(.unsupported, "The NBD server does not support TLS yet") }
        let seconds = handshakeMaxSeconds ?? 10
        let connections = maxConnections ?? 100
        self.init(
            addresses: [address], handshakeLimit: seconds == 0 ? nil : .seconds(Int64(seconds)),
            maximumConnections: connections == 0 ? nil : Int(connections))
    }
}

extension HostAddress {
    /// - Throws: `.unsupported` for kinds of addresses that are not there yet; they are named.
    package init(_ address: SocketAddress) throws(BlockError) {
        switch address.branch {
        case .unix(let unix):
            if unix.abstract == true { throw BlockError(.unsupported, "Abstract unix socket addresses are not supported yet") }
            self = .unix(path: unix.path)
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
