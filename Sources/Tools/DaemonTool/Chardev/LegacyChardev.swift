import QAPIRuntime
import StorageSchema
import StrataBase
import ToolSupport

/// The short options of `--chardev`, which differ in names and defaults from those of `chardev-add`.
struct LegacyChardev {
    private let list: OptionList

    init(_ list: OptionList) { self.list = list }

    private static let common: Set<String> = ["backend", "id", "logfile", "logappend"]

    func branch(_ kind: String) throws(QMPError) -> ChardevBackend.Branch {
        let (log, appends) = (list["logfile"], try flag("logappend"))
        switch kind {
        case "null":
            try check([])
            return .null(ChardevCommonWrapper(data: ChardevCommon(logfile: log, logappend: appends)))
        case "ringbuf":
            try check(["size"])
            var size: Int?
            if let text = list["size"] {
                guard let bytes = ByteSize.parse(text) else { throw QMPError("Parameter 'size' expects a size in bytes") }
                size = bytes
            }
            return .ringbuf(ChardevRingbufWrapper(data: ChardevRingbuf(logfile: log, logappend: appends, size: size)))
        case "file":
            try check(["path", "input-path", "append"])
            guard let path = list["path"] else { throw QMPError("chardev: file: no filename given") }
            let file = ChardevFile(logfile: log, logappend: appends, in: list["input-path"], out: path, append: try flag("append"))
            return .file(ChardevFileWrapper(data: file))
        case "pipe":
            try check(["path"])
            guard let path = list["path"] else { throw QMPError("chardev: pipe: no device path given") }
            return .pipe(ChardevHostdevWrapper(data: ChardevHostdev(logfile: log, logappend: appends, device: path)))
        case "pty":
            try check(["path"])
            return .pty(ChardevPtyWrapper(data: ChardevPty(logfile: log, logappend: appends, path: list["path"])))
        case "stdio":
            try check(["signal"])
            return .stdio(ChardevStdioWrapper(data: ChardevStdio(logfile: log, logappend: appends, signal: try flag("signal"))))
        case "socket": return .socket(ChardevSocketWrapper(data: try socket(log, appends)))
        default:
            let names = ChardevBackendKind.allCases.map(\.rawValue).sorted().joined(separator: ", ")
            throw QMPError("'\(kind)' is not a valid char driver name: there are \(names)")
        }
    }

    private func socket(_ log: String?, _ appends: Bool?) throws(QMPError) -> ChardevSocket {
        try check([
            "path", "host", "port", "fd", "to", "ipv4", "ipv6", "abstract", "tight", "server", "wait", "delay", "nodelay", "reconnect", "reconnect-ms",
            "telnet", "tn3270", "websocket", "tls-creds", "tls-authz",
        ])
        let isServer = try flag("server") ?? false
        let waits = try flag("wait")
        if !isServer, waits != nil { throw QMPError("'wait' option is incompatible with socket in client connect mode") }
        return ChardevSocket(
            logfile: log, logappend: appends, addr: try address(), tlsCreds: list["tls-creds"], tlsAuthz: list["tls-authz"], server: isServer,
            wait: isServer ? waits ?? true : nil, telnet: try flag("telnet"), tn3270: try flag("tn3270"), websocket: try flag("websocket"),
            reconnect: try number("reconnect"), reconnectMs: try number("reconnect-ms"))
    }

    private func address() throws(QMPError) -> SocketAddressLegacy {
        let (path, host, port, descriptor) = (list["path"], list["host"], list["port"], list["fd"])
        if (path == nil ? 0 : 1) + (host == nil && port == nil ? 0 : 1) + (descriptor == nil ? 0 : 1) > 1 {
            throw QMPError("chardev: socket: 'path', 'fd', and 'host' with 'port' exclude each other")
        }
        if let path {
            return SocketAddressLegacy(
                .unix(UnixSocketAddressWrapper(data: UnixSocketAddress(path: path, abstract: try flag("abstract"), tight: try flag("tight")))))
        }
        if let descriptor { return SocketAddressLegacy(.fd(FdSocketAddressWrapper(data: FdSocketAddress(str: descriptor)))) }
        guard let host else { throw QMPError(port == nil ? "chardev: socket: no address given: 'path', 'fd', or 'host' and 'port'" : "chardev: socket: no host given") }
        guard let port else { throw QMPError("chardev: socket: no port given") }
        var last: UInt16?
        if let number = try number("to") {
            guard let small = UInt16(exactly: number) else { throw QMPError("Parameter 'to' expects uint16_t") }
            last = small
        }
        return SocketAddressLegacy(
            .inet(InetSocketAddressWrapper(data: InetSocketAddress(host: host, port: port, to: last, ipv4: try flag("ipv4"), ipv6: try flag("ipv6")))))
    }

    /// Each element is known, or refused by name.
    private func check(_ known: Set<String>) throws(QMPError) {
        for element in list.elements {
            let name = element.value == nil ? Self.switchName(element.key) : element.key
            if known.contains(name) || Self.common.contains(name) { continue }
            if name == "mux", element.value == "off" { continue }
            throw QMPError(name == "mux" ? "Parameter 'mux' is not supported" : "Invalid parameter '\(element.key)'")
        }
    }

    /// The old short forms: `server` for `server=on`, `nowait` for `wait=off`.
    private static func switchName(_ key: String) -> String {
        key.hasPrefix("no") && ["noserver", "nowait", "notelnet", "nowebsocket"].contains(key) ? String(key.dropFirst(2)) : key
    }

    /// The value of a switch; nil when it is not given.
    private func flag(_ name: String) throws(QMPError) -> Bool? {
        guard let element = list.elements.last(where: { $0.key == name || ($0.value == nil && $0.key == "no" + name) }) else { return nil }
        switch element.value {
        case nil: return element.key == name
        case "on", "yes", "true", "y": return true
        case "off", "no", "false", "n": return false
        case _?: throw QMPError("Parameter '\(name)' expects 'on' or 'off'")
        }
    }

    private func number(_ name: String) throws(QMPError) -> Int? {
        guard let text = list[name] else { return nil }
        return try Int(decoding: .string(text), DecodingContext(.keyValue).member(name))
    }
}
