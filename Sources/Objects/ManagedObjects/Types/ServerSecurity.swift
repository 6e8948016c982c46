package import IOCore
package import StrataBase

/// What a server demands of its clients' connections: TLS, and perhaps a name that is let in.
package struct ServerSecurity: Sendable {
    private let use: ObjectUse<any TLSCredentialObject>
    private let authorization: String?
    private let objects: ObjectRegistry

    /// - Parameters:
    ///   - credentials: the id of TLS credentials for a server.
    ///   - authorization: the id of an authorization object; it is looked for when a client comes.
    ///   - user: who is named when somebody tries to delete the credentials.
    package init(credentials: String, authorization: String?, in objects: ObjectRegistry, by user: String) throws(BlockError) {
        use = try objects.useTLSCredentials(credentials, forServer: true, by: user)
        self.authorization = authorization
        self.objects = objects
    }

    /// A session for a client that has asked for TLS.
    package func makeSession(over socket: ConnectedSocket) throws(BlockError) -> TLSSession { try TLSSession(over: socket, use.object.credentials) }

    /// Looks at whom a handshake has shown the client to be.
    /// - Throws: `.accessDenied` when that one is not let in.
    package func admit(_ session: TLSSession) throws(BlockError) {
        guard let id = authorization else { return }
        guard let decider = objects.object(id, as: (any Authorization).self) else { throw BlockError(.accessDenied, "Cannot find QAuthZ object ID \(id)") }
        guard let name = session.peerName else { throw BlockError(.accessDenied, "The client has no certificate to be known by") }
        guard decider.allows(name) else { throw BlockError(.accessDenied, "TLS x509 authz check for \(name) is denied") }
    }
}

extension ServerSecurity: Hashable {
    package static func == (one: ServerSecurity, other: ServerSecurity) -> Bool { one.use === other.use && one.authorization == other.authorization }
    package func hash(into hasher: inout Hasher) { hasher.combine(ObjectIdentifier(use)) }
}
