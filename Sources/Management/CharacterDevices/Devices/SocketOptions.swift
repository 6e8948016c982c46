import Glibc
import IOCore
import ManagedObjects
import SocketAddresses
import StorageSchema
import StrataBase

/// What a socket device is made from, checked.
struct SocketOptions: Sendable {
    let address: HostAddress
    let tcp: TCPSettings
    let isServer: Bool
    let waits: Bool
    /// How long after the end of a connection to try again; nil: never.
    let reconnectDelay: Duration?
    /// As the user gave it, in the form that `qom-get` tells.
    let given: SocketAddress
    let upgrade: SocketUpgrade.Plan

    /// - Parameters:
    ///   - acceptsDescriptors: whether a number of a descriptor means anything: on the command line of whoever has opened it.
    ///   - objects: where TLS credentials and authorizations are.
    ///   - user: who uses them, for messages.
    /// - Throws: what contradicts itself or is not supported, by name.
    init(_ options: ChardevSocket, acceptsDescriptors: Bool, objects: ObjectRegistry, user: String) throws(BlockError) {
        isServer = options.server ?? true
        waits = options.wait ?? false
        if !isServer, options.wait != nil { throw Self.clash("wait", "client connect") }
        if options.reconnect != nil, options.reconnectMs != nil {
            throw BlockError(.invalidArgument, "'reconnect' and 'reconnect-ms' are mutually exclusive")
        }
        if isServer, options.reconnect ?? 0 != 0 { throw Self.clash("reconnect", "server listen") }
        if isServer, options.reconnectMs ?? 0 != 0 { throw Self.clash("reconnect-ms", "server listen") }
        if options.tn3270 == true { throw BlockError(.unsupported, "Parameter 'tn3270' is not supported: it is for consoles of guests") }
        if options.websocket == true, !isServer { throw BlockError(.unsupported, "Websocket client is not implemented") }
        let milliseconds: Int
        if let seconds = options.reconnect {
            let (product, overflow) = seconds.multipliedReportingOverflow(by: 1000)
            if overflow || seconds < 0 { throw BlockError(.invalidArgument, "Parameter 'reconnect' expects a number of seconds") }
            milliseconds = product
        } else {
            milliseconds = options.reconnectMs ?? 0
        }
        if milliseconds < 0 { throw BlockError(.invalidArgument, "Parameter 'reconnect-ms' expects a number of milliseconds") }
        reconnectDelay = milliseconds > 0 ? .milliseconds(Int64(milliseconds)) : nil

        given = SocketAddress(options.addr)
        tcp = try TCPSettings(given)
        upgrade = SocketUpgrade.Plan(
            security: try Self.security(options, given, isServer: isServer, objects, user), isWebSocket: options.websocket ?? false,
            isTelnet: options.telnet ?? false)
        switch given.branch {
        case .inet(let inet):
            address = .tcp(host: inet.host, port: inet.port)
        case .fd(let file):
            guard acceptsDescriptors else {
                throw BlockError(.unsupported, "File descriptors can be handed over on the command line only")
            }
            address = .descriptor(try file.number)
        case .unix, .vsock: address = try HostAddress(given)
        }
    }

    private static func clash(_ option: String, _ mode: String) -> BlockError {
        BlockError(.invalidArgument, "'\(option)' option is incompatible with socket in \(mode) mode")
    }

    /// - Throws: when credentials are not there or for the other end, or where no encryption is possible.
    private static func security(
        _ options: ChardevSocket, _ address: SocketAddress, isServer: Bool, _ objects: ObjectRegistry, _ user: String
    ) throws(BlockError) -> SocketUpgrade.Security? {
        guard let credentials = options.tlsCreds else {
            // Never let everybody in where only some were meant.
            if options.tlsAuthz != nil { throw BlockError(.invalidArgument, "'tls_authz' option requires 'tls_creds' option") }
            return nil
        }
        let security: SocketUpgrade.Security
        var host: String?
        if case .inet(let inet) = address.branch { host = inet.host }
        if isServer {
            security = .server(try ServerSecurity(credentials: credentials, authorization: options.tlsAuthz, in: objects, by: user))
        } else {
            security = .client(try objects.useTLSCredentials(credentials, forServer: false, by: user), host: host)
        }
        guard host != nil else {
            throw BlockError(.unsupported, "'tls_creds' option is incompatible with '\(address.type.rawValue)' address type")
        }
        return security
    }

    func listen() throws(BlockError) -> ListeningSocket { try ListeningSocket(address, tcp: tcp) }

    func connect() throws(BlockError) -> ConnectedSocket { try ConnectedSocket(connectingTo: address, tcp: tcp) }
}
