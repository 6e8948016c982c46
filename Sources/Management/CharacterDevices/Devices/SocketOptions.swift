import Glibc
import IOCore
import StorageSchema
import StrataBase

/// What a socket device is made from, checked.
struct SocketOptions: Sendable {
    let address: HostAddress
    let family: IPFamily
    /// When listening, the last port to try.
    let lastPort: Int?
    let isServer: Bool
    let waits: Bool
    /// How long after the end of a connection to try again; nil: never.
    let reconnectDelay: Duration?
    /// As the user gave it, in the form that `qom-get` tells.
    let given: SocketAddress

    /// - Parameter acceptsDescriptors: whether a number of a descriptor means anything: on the command line of whoever has opened it.
    /// - Throws: what contradicts itself or is not supported, by name.
    init(_ options: ChardevSocket, acceptsDescriptors: Bool) throws(BlockError) {
        isServer = options.server ?? true
        waits = options.wait ?? false
        if !isServer, options.wait != nil { throw Self.clash("wait", "client connect") }
        if options.reconnect != nil, options.reconnectMs != nil {
            throw BlockError(.invalidArgument, "'reconnect' and 'reconnect-ms' are mutually exclusive")
        }
        if isServer, options.reconnect ?? 0 != 0 { throw Self.clash("reconnect", "server listen") }
        if isServer, options.reconnectMs ?? 0 != 0 { throw Self.clash("reconnect-ms", "server listen") }
        if options.tlsCreds != nil { throw BlockError(.unsupported, "Parameter 'tls-creds' is not supported: TLS of character devices is not there yet") }
        if options.tlsAuthz != nil { throw BlockError(.invalidArgument, "'tls_authz' option requires 'tls_creds' option") }
        for (name, value) in [("telnet", options.telnet), ("tn3270", options.tn3270), ("websocket", options.websocket)] where value == true {
            throw BlockError(.unsupported, "Parameter '\(name)' is not supported")
        }
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

        var family = IPFamily.any
        var lastPort: Int?
        switch options.addr.branch {
        case .unix(let wrapper):
            let unix = wrapper.data
            given = SocketAddress(.unix(unix))
            address = unix.abstract == true ? .abstract(name: unix.path, isPadded: unix.tight == false) : .unix(path: unix.path)
        case .inet(let wrapper):
            let inet = wrapper.data
            given = SocketAddress(.inet(inet))
            for (name, value) in [("mptcp", inet.mptcp), ("keep-alive", inet.keepAlive), ("numeric", inet.numeric)] where value == true {
                throw BlockError(.unsupported, "Parameter '\(name)' of inet addresses is not supported")
            }
            switch (inet.ipv4, inet.ipv6) {
            case (false?, false?): throw BlockError(.invalidArgument, "Cannot disable IPv4 and IPv6 at same time")
            case (true?, nil), (true?, false?), (nil, false?): family = .ipv4
            case (nil, true?), (false?, true?), (false?, nil): family = .ipv6
            case (true?, true?), (nil, nil): break
            }
            if let last = inet.to {
                guard let first = Int(inet.port), first <= last else {
                    throw BlockError(.invalidArgument, "Parameter 'to' expects the last of the ports from '\(inet.port)' on")
                }
                lastPort = Int(last)
            }
            address = .tcp(host: inet.host, port: inet.port)
        case .fd(let wrapper):
            given = SocketAddress(.fd(wrapper.data))
            guard acceptsDescriptors else {
                throw BlockError(.unsupported, "File descriptors can be handed over on the command line only")
            }
            guard let number = Int32(wrapper.data.str), number >= 0 else {
                throw BlockError(.invalidArgument, "File descriptor '\(wrapper.data.str)' is not a number")
            }
            address = .descriptor(number)
        case .vsock: throw BlockError(.unsupported, "Socket address type 'vsock' is not supported")
        }
        self.family = family
        self.lastPort = lastPort
    }

    private static func clash(_ option: String, _ mode: String) -> BlockError {
        BlockError(.invalidArgument, "'\(option)' option is incompatible with socket in \(mode) mode")
    }

    func listen() throws(BlockError) -> ListeningSocket {
        guard case .tcp(let host, let port) = address, let first = Int(port), let lastPort else { return try ListeningSocket(address, family: family) }
        for candidate in first..<lastPort {
            do throws(BlockError) {
                return try ListeningSocket(.tcp(host: host, port: String(candidate)), family: family)
            } catch {
                guard error.errno == EADDRINUSE else { throw error }
            }
        }
        return try ListeningSocket(.tcp(host: host, port: String(lastPort)), family: family)
    }

    func connect() throws(BlockError) -> ConnectedSocket { try ConnectedSocket(connectingTo: address, family: family) }
}
