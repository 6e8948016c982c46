package import IOCore
package import StorageSchema
package import StrataBase

/// TLS credentials of any kind.
package protocol TLSCredentialObject: ManagedObject {
    var credentials: TLSCredentials { get }
    /// What all kinds are made from.
    var common: TLSCredentialOptions { get }
}

extension TLSCredentialObject {
    package static var parentTypeName: String { "tls-creds" }

    fileprivate static var commonProperties: [ObjectProperty<Self>] {
        [
            ObjectProperty("dir", type: "string") { $0.common.directory ?? "" },
            ObjectProperty("endpoint", type: "QCryptoTLSCredsEndpoint") { $0.common.isServer ? QCryptoTLSCredsEndpoint.server : .client },
            ObjectProperty("priority", type: "string") { $0.common.priority ?? "" },
            ObjectProperty("verify-peer", type: "bool") { $0.common.verifiesPeer },
        ]
    }
}

/// What the three kinds have in common.
package struct TLSCredentialOptions: Sendable {
    let directory: String?
    let isServer: Bool
    let verifiesPeer: Bool
    let priority: String?

    init(_ directory: String?, _ endpoint: QCryptoTLSCredsEndpoint?, verifyPeer: Bool?, priority: String?) {
        self.directory = directory
        isServer = endpoint == .server
        verifiesPeer = verifyPeer ?? true
        self.priority = priority
    }

    /// A file that has to be there.
    static func file(_ directory: String?, _ name: String) throws(BlockError) -> String {
        guard let directory else { throw BlockError(.invalidArgument, "Missing 'dir' property value") }
        let path = "\(directory)/\(name)"
        guard try optionalFile(directory, name) != nil else { throw BlockError(.notFound, "Unable to access credentials \(path): \(BlockError.text(ofErrno: 2))") }
        return path
    }

    /// A file that may be missing, but not unreadable.
    static func optionalFile(_ directory: String, _ name: String) throws(BlockError) -> String? {
        let path = "\(directory)/\(name)"
        do throws(BlockError) {
            _ = try SmallFile.read(path, limit: 16 << 20)
            return path
        } catch {
            if error.code == .notFound { return nil }
            throw error.during("Unable to access credentials \(path)")
        }
    }
}

/// Encryption with certificates (`tls-creds-x509`).
package final class X509CredentialObject: TLSCredentialObject {
    package static let typeName = "tls-creds-x509"
    package let credentials: TLSCredentials
    package let common: TLSCredentialOptions
    private let options: TlsCredsX509Properties

    package init(_ options: TlsCredsX509Properties, in registry: ObjectRegistry) throws(BlockError) {
        common = TLSCredentialOptions(options.dir, options.endpoint, verifyPeer: options.verifyPeer, priority: options.priority)
        let authorities = try TLSCredentialOptions.file(options.dir, "ca-cert.pem")
        let directory = options.dir ?? ""
        var files = TLSCredentials.X509Files(authorities: authorities, revocations: try TLSCredentialOptions.optionalFile(directory, "ca-crl.pem"))
        let role = common.isServer ? "server" : "client"
        if common.isServer {
            files.certificate = try TLSCredentialOptions.file(directory, "server-cert.pem")
            files.key = try TLSCredentialOptions.file(directory, "server-key.pem")
        } else {
            files.certificate = try TLSCredentialOptions.optionalFile(directory, "\(role)-cert.pem")
            if files.certificate != nil { files.key = try TLSCredentialOptions.file(directory, "\(role)-key.pem") }
        }
        if let id = options.passwordid { files.password = try registry.password(id) }
        credentials = try TLSCredentials(.x509(files), isServer: common.isServer, verifiesPeer: common.verifiesPeer, priority: common.priority)
        self.options = options
    }

    package static let properties: [ObjectProperty<X509CredentialObject>] = commonProperties + [
        ObjectProperty("passwordid", type: "string") { $0.options.passwordid ?? "" },
        ObjectProperty("sanity-check", type: "bool") { $0.options.sanityCheck ?? true },
    ]
}

/// Encryption with a shared key (`tls-creds-psk`).
package final class SharedKeyCredentialObject: TLSCredentialObject {
    package static let typeName = "tls-creds-psk"
    package let credentials: TLSCredentials
    package let common: TLSCredentialOptions
    private let options: TlsCredsPskProperties

    package init(_ options: TlsCredsPskProperties) throws(BlockError) {
        common = TLSCredentialOptions(options.dir, options.endpoint, verifyPeer: options.verifyPeer, priority: options.priority)
        let file = try TLSCredentialOptions.file(options.dir, "keys.psk")
        if common.isServer, options.username != nil { throw BlockError(.invalidArgument, "username should not be set when endpoint=server") }
        credentials = try TLSCredentials(
            .preSharedKey(file: file, user: options.username ?? "qemu"), isServer: common.isServer, verifiesPeer: common.verifiesPeer, priority: common.priority)
        self.options = options
    }

    package static let properties: [ObjectProperty<SharedKeyCredentialObject>] = commonProperties + [
        ObjectProperty("username", type: "string") { $0.options.username ?? "" },
    ]
}

/// Encryption between strangers (`tls-creds-anon`).
package final class AnonymousCredentialObject: TLSCredentialObject {
    package static let typeName = "tls-creds-anon"
    package let credentials: TLSCredentials
    package let common: TLSCredentialOptions
    private let options: TlsCredsAnonProperties

    package init(_ options: TlsCredsAnonProperties) throws(BlockError) {
        common = TLSCredentialOptions(options.dir, options.endpoint, verifyPeer: options.verifyPeer, priority: options.priority)
        credentials = try TLSCredentials(.anonymous, isServer: common.isServer, verifiesPeer: common.verifiesPeer, priority: common.priority)
        self.options = options
    }

    package static let properties: [ObjectProperty<AnonymousCredentialObject>] = commonProperties
}

extension ObjectRegistry {
    /// Credentials for one end of a connection, which cannot be deleted as long as the result exists.
    /// - Throws: `.notFound` when there are none of that id, `.invalidArgument` when they are for the other end.
    package func useTLSCredentials(_ id: String, forServer isServer: Bool, by user: String) throws(BlockError) -> ObjectUse<any TLSCredentialObject> {
        guard let use = use(id, as: (any TLSCredentialObject).self, by: user) else {
            if object(id, as: (any ManagedObject).self) != nil { throw BlockError(.invalidArgument, "Object with id '\(id)' is not TLS credentials") }
            throw BlockError(.notFound, "No TLS credentials with id '\(id)'")
        }
        guard use.object.credentials.isServer == isServer else {
            throw BlockError(.invalidArgument, "Expected TLS credentials for a \(isServer ? "server" : "client") endpoint")
        }
        return use
    }
}
