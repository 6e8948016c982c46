import IOCore
import SocketAddresses
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
