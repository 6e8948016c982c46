import IOCore
package import ManagedObjects
import SocketAddresses
package import StorageSchema
package import StrataBase

// From what QAPI and the command line say to what the server takes.

extension NBDServer.Configuration {
    /// What `--nbd-server` says.
    /// - Parameter objects: where TLS credentials and authorizations are.
    package init(_ options: NbdServerOptions, objects: ObjectRegistry) throws(BlockError) {
        try self.init(
            options.addr, handshakeMaxSeconds: options.handshakeMaxSeconds, maxConnections: options.maxConnections,
            security: Self.security(options.tlsCreds, options.tlsAuthz, objects))
    }

    /// What `nbd-server-start` says. A client has no descriptors to give: the numbers would be those of the daemon's own files.
    /// - Parameter objects: where TLS credentials and authorizations are.
    package init(_ options: NbdServerOptionsLegacy, objects: ObjectRegistry) throws(BlockError) {
        let address = SocketAddress(options.addr)
        if case .fd = address.branch { throw BlockError(.unsupported, "File descriptors can be handed over on the command line only") }
        try self.init(
            address, handshakeMaxSeconds: options.handshakeMaxSeconds, maxConnections: options.maxConnections,
            security: Self.security(options.tlsCreds, options.tlsAuthz, objects))
    }

    /// Zero means "no limit" for both numbers.
    private init(_ address: SocketAddress, handshakeMaxSeconds: UInt32?, maxConnections: UInt32?, security: ServerSecurity?) throws(BlockError) {
        let seconds = handshakeMaxSeconds ?? 10
        let connections = maxConnections ?? 100
        try self.init(
            addresses: [HostAddress(address)], tcp: TCPSettings(address), handshakeLimit: seconds == 0 ? nil : .seconds(Int64(seconds)),
            maximumConnections: connections == 0 ? nil : Int(connections), security: security)
    }

    private static func security(_ credentials: String?, _ authorization: String?, _ objects: ObjectRegistry) throws(BlockError) -> ServerSecurity? {
        guard let credentials else {
            // Never let everybody in where only some were meant.
            if authorization != nil { throw BlockError(.invalidArgument, "TLS authorization is only possible with TLS credentials ('tls-creds')") }
            return nil
        }
        return try ServerSecurity(credentials: credentials, authorization: authorization, in: objects, by: "the NBD server")
    }
}
