internal import CGnuTLS
package import StrataBase

/// What one side of a TLS connection proves itself with, and whom it believes. Loaded once, used by any number of sessions at a time.
@safe package final class TLSCredentials: @unchecked Sendable {  // unchecked: filled before it is shared, and only read afterwards
    package enum Kind: Sendable, Hashable {
        /// Certificates.
        case x509(X509Files)
        /// A key that both sides know. `user` is whom a client claims to be.
        case preSharedKey(file: String, user: String)
        /// Encrypted, and nobody is who he says.
        case anonymous
    }

    /// Files in PEM.
    package struct X509Files: Sendable, Hashable {
        package var authorities: String
        package var revocations: String?
        /// Certificate and key; a server always has them, a client may.
        package var certificate: String?
        package var key: String?
        /// Opens an encrypted key.
        package var password: String?

        package init(authorities: String, revocations: String? = nil, certificate: String? = nil, key: String? = nil, password: String? = nil) {
            self.authorities = authorities
            self.revocations = revocations
            self.certificate = certificate
            self.key = key
            self.password = password
        }
    }

    package let isServer: Bool
    /// The peer has to prove who it is. Always so for a client with certificates.
    package let verifiesPeer: Bool
    package let usesCertificates: Bool
    /// Algorithms in GnuTLS's own language.
    package let priority: String
    let handle: OpaquePointer

    /// - Parameter priority: in GnuTLS's language; nil for the library's own choice.
    /// - Throws: `.unsupported` without GnuTLS, or what is wrong with a file, which is named.
    package init(_ kind: Kind, isServer: Bool, verifiesPeer: Bool, priority: String?) throws(BlockError) {
        if let reason = unsafe strata_tls_unavailable() { throw BlockError(.unsupported, "TLS is not available: \(unsafe String(cString: reason))") }
        let number: strata_tls_kind
        let common = priority ?? "NORMAL"
        switch kind {
        case .x509: (number, self.priority) = (STRATA_TLS_X509, common)
        case .preSharedKey: (number, self.priority) = (STRATA_TLS_PSK, common + ":+ECDHE-PSK:+DHE-PSK:+PSK")
        case .anonymous: (number, self.priority) = (STRATA_TLS_ANONYMOUS, common + ":-VERS-TLS1.3:+ANON-ECDH:+ANON-DH")
        }
        var made: OpaquePointer?
        let result = unsafe strata_tls_credentials_new(&made, number, isServer ? 1 : 0)
        guard let made = unsafe made else { throw Self.error(result, "Cannot allocate credentials") }
        unsafe handle = made
        self.isServer = isServer
        if case .x509 = kind { usesCertificates = true } else { usesCertificates = false }
        self.verifiesPeer = verifiesPeer
        switch kind {
        case .x509(let files): try load(files)
        case .preSharedKey(let file, let user): try loadKey(file, user)
        case .anonymous: break
        }
    }

    // SAFETY: sessions hold a reference to their credentials, so none uses them any more.
    deinit { unsafe strata_tls_credentials_free(handle) }

    private static func error(_ result: Int32, _ what: String) -> BlockError {
        BlockError(.invalidArgument, "\(what): \(text(result))")
    }

    static func text(_ result: Int32) -> String {
        guard let text = unsafe strata_tls_error_text(result) else { return "error \(result)" }
        return unsafe String(cString: text)
    }

    private func load(_ files: X509Files) throws(BlockError) {
        // SAFETY (the calls below): strings live for the call; the handle belongs to this object.
        var result = unsafe strata_tls_trust(handle, files.authorities)
        if result < 0 { throw Self.error(result, "Cannot load CA certificate '\(files.authorities)'") }
        if result == 0 { throw BlockError(.invalidArgument, "Cannot load CA certificate '\(files.authorities)': there is none in the file") }
        if let certificate = files.certificate, let key = files.key {
            result = unsafe strata_tls_key_pair(handle, certificate, key, files.password)
            if result < 0 { throw Self.error(result, "Cannot load certificate '\(certificate)' & key '\(key)'") }
        }
        if let list = files.revocations {
            result = unsafe strata_tls_revocations(handle, list)
            if result < 0 { throw Self.error(result, "Cannot load CRL '\(list)'") }
        }
    }

    private func loadKey(_ file: String, _ user: String) throws(BlockError) {
        if isServer {
            let result = unsafe strata_tls_psk_file(handle, file)
            if result < 0 { throw Self.error(result, "Cannot set PSK server credentials") }
            return
        }
        let bytes = try SmallFile.read(file, limit: 1 << 20)
        for line in String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isNewline) {
            guard let colon = line.firstIndex(of: ":"), line[..<colon] == user else { continue }
            let result = unsafe strata_tls_psk_key(handle, user, String(line[line.index(after: colon)...]))
            if result < 0 { throw Self.error(result, "Cannot set PSK client credentials") }
            return
        }
        throw BlockError(.invalidArgument, "Username \(user) not found in PSK file \(file)")
    }
}
