package import IOCore
package import ManagedObjects
package import NBDProtocol
package import StrataBase

/// Asks a server what it has.
package enum ExportListing {
    /// - Parameters:
    ///   - credentials: the id of the TLS credentials to use; nil to talk in clear.
    ///   - hostName: the name that the server's certificate must bear, when it is another than the address's.
    ///   - objects: where the credentials are.
    /// - Throws: what kept us from connecting, the server's refusal, or what it did wrong.
    package static func fetch(
        from address: HostAddress, credentials: String? = nil, hostName: String? = nil, objects: ObjectRegistry
    ) async throws(BlockError) -> [ListedExport] {
        guard let context = IOContext.current else { preconditionFailure("a negotiation runs on an I/O context") }
        let server = ServerAddress.host(address)
        var security: ClientSecurity?
        if let credentials {
            let use = try objects.useTLSCredentials(credentials, forServer: false, by: "the list of exports")
            security = ClientSecurity(use: use, hostName: hostName ?? server.hostName)
        }
        let socket = try ConnectedSocket(connectingTo: address)
        return try await Negotiation.run(ListHandshake(usesTLS: security != nil), over: socket, security, context: context).session
    }
}
