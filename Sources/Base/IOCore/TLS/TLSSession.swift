internal import CGnuTLS
import Glibc
package import StrataBase

/// The encryption of one connection. Used by one isolation at a time, like the connection itself.
@safe package final class TLSSession: @unchecked Sendable {  // unchecked: passed from the handshake to the connection, never used by both
    package let credentials: TLSCredentials
    private let handle: OpaquePointer
    private let hostName: String?
    /// The socket below, which stays open as long as the session.
    private let socket: ConnectedSocket

    /// - Parameters:
    ///   - socket: connected and non-blocking; nothing else reads or writes on it from now on.
    ///   - hostName: for a client, the name that the server's certificate must bear.
    package init(over socket: ConnectedSocket, _ credentials: TLSCredentials, hostName: String? = nil) throws(BlockError) {
        var made: OpaquePointer?
        // SAFETY: strings live for the call; the credentials and the socket are kept by this object.
        let result = unsafe strata_tls_session_new(
            &made, credentials.handle, credentials.isServer ? 1 : 0, socket.descriptor, credentials.priority,
            // Numbers of addresses are no names to ask a server for.
            hostName.flatMap { $0.contains(":") || $0.allSatisfy { $0.isNumber || $0 == "." } ? nil : $0 }, credentials.verifiesPeer ? 1 : 0)
        guard let made = unsafe made else { throw BlockError(.invalidArgument, "Cannot create TLS session: \(TLSCredentials.text(result))") }
        unsafe handle = made
        self.credentials = credentials
        self.hostName = hostName
        self.socket = socket
    }

    deinit { unsafe strata_tls_session_free(handle) }

    package enum Progress: Sendable, Hashable {
        case done
        /// Call `handshake` again when the socket is ready for that.
        case waits(ReadyEvents)
    }

    /// Goes on with the handshake as far as it gets without waiting, and when it is over checks who the peer is.
    /// - Throws: `.connection` when it fails, `.accessDenied` when the peer is not whom we believe.
    package func handshake() throws(BlockError) -> Progress {
        let result = unsafe strata_tls_handshake(handle)
        switch result {
        case 0: break
        case 1: return .waits(.readable)
        case 2: return .waits(.writable)
        default:
            Trace.tlsHandshakeFailed(descriptor: Int(socket.descriptor), reason: TLSCredentials.text(result))
            throw BlockError(.connection, "TLS handshake failed: \(TLSCredentials.text(result))")
        }
        if credentials.usesCertificates, credentials.verifiesPeer || !credentials.isServer { try verify() }
        Trace.tlsHandshakeEnd(descriptor: Int(socket.descriptor), cipher: cipherPlace.rawValue)
        return .done
    }

    private func verify() throws(BlockError) {
        if !credentials.isServer, hostName == nil { throw BlockError(.invalidArgument, "No hostname for certificate validation") }
        var text = [CChar](repeating: 0, count: 512)
        let result = unsafe text.withUnsafeMutableBufferPointer { unsafe strata_tls_verify(handle, hostName, $0.baseAddress, $0.count) }
        if result == 0 { return }
        Trace.tlsHandshakeFailed(descriptor: Int(socket.descriptor), reason: Self.string(text))
        throw BlockError(.accessDenied, "The certificate of the TLS peer is not trusted: \(Self.string(text))")
    }

    /// Who enciphers and deciphers.
    package enum CipherPlace: String, Sendable { case process, kernel }

    /// Where what is sent is enciphered, once the handshake is done. GnuTLS hands that over to the kernel where its configuration says so
    /// (`ktls = true`), the connection is TCP and the kernel has TLS; reads and writes stay the calls that they are.
    package var cipherPlace: CipherPlace { unsafe strata_tls_kernel_directions(handle) & 2 != 0 ? .kernel : .process }

    /// The distinguished name of the peer's certificate, as RFC 4514 writes it; nil when it has none.
    package var peerName: String? {
        var text = [CChar](repeating: 0, count: 1024)
        let result = unsafe text.withUnsafeMutableBufferPointer { unsafe strata_tls_peer_name(handle, $0.baseAddress, $0.count) }
        return result == 0 ? Self.string(text) : nil
    }

    private static func string(_ text: [CChar]) -> String {
        String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Whether bytes are there for which the socket does not become readable any more.
    var hasPending: Bool { unsafe strata_tls_pending(handle) > 0 }

    func receive(_ bytes: UnsafeMutableRawPointer?, _ count: Int) -> Int { unsafe strata_tls_receive(handle, bytes, count) }

    func send(_ list: UnsafePointer<iovec>, _ count: Int32) -> Int { unsafe strata_tls_send(handle, list, count) }

    func goodbye() { unsafe strata_tls_goodbye(handle) }
}
