import IOCore
import QAPIRuntime
import StrataBase
import ToolSupport

/// What `--chardev` asks for: the kinds of byte streams that a monitor can use.
struct ChardevOptions: Sendable, Hashable {
    enum Kind: Sendable, Hashable {
        /// Standard input and output.
        case standardStreams
        /// Listens at an address; with `waits`, the options that follow are not looked at before a client is there.
        case server(HostAddress, waits: Bool)
        /// Connects to an address.
        case client(HostAddress)
    }

    let id: String
    let kind: Kind

    /// - Throws: what is wrong, or not supported, by name. Nothing that would change the meaning is ignored.
    init(parsing text: String, goesToBackground: Bool) throws(QMPError) {
        let list = OptionList(parsing: text, impliedKey: "backend")
        guard let id = list["id"] else { throw QMPError("chardev: no id specified") }
        guard let backend = list["backend"] else { throw QMPError("chardev: \"\(id)\" missing backend") }
        self.id = id
        switch backend {
        case "stdio":
            try Self.check(list, known: ["backend", "id", "signal"], unsupported: Self.common)
            if try Self.flag(list, "signal") == false { throw QMPError("Parameter 'signal' is not supported: signals end the daemon") }
            if goesToBackground { throw QMPError("cannot use stdio with -daemonize") }
            kind = .standardStreams
        case "socket": kind = try Self.socket(list, goesToBackground)
        default: throw QMPError("'\(backend)' is not a valid char driver name: there are socket and stdio")
        }
    }

    private static let common: Set<String> = ["mux", "logfile", "logappend"]
    private static let unsupportedOfSockets: Set<String> = [
        "telnet", "tn3270", "websocket", "tls-creds", "tls-authz", "reconnect", "reconnect-ms", "abstract", "fd", "to", "ipv4", "ipv6", "localaddr",
        "localport",
    ]

    private static func socket(_ list: OptionList, _ goesToBackground: Bool) throws(QMPError) -> Kind {
        try check(
            // `delay` and `tight` make no difference here: small answers are sent at once, and abstract addresses are refused.
            list, known: ["backend", "id", "path", "host", "port", "server", "wait", "delay", "nodelay", "tight"],
            unsupported: common.union(unsupportedOfSockets))
        let address: HostAddress
        switch (list["path"], list["host"], list["port"]) {
        case (let path?, nil, nil): address = .unix(path: goesToBackground ? HostPath.absolute(path) : path)
        case (_?, _, _): throw QMPError("chardev: socket: 'path' excludes 'host' and 'port'")
        case (nil, let host?, let port?): address = .tcp(host: host, port: port)
        case (nil, _?, nil): throw QMPError("chardev: socket: no port given")
        case (nil, nil, _?): throw QMPError("chardev: socket: no host given")
        case (nil, nil, nil): throw QMPError("chardev: socket: no address given: 'path', or 'host' and 'port'")
        }
        let waits = try flag(list, "wait")
        guard try flag(list, "server") ?? false else {
            if waits != nil { throw QMPError("'wait' option is incompatible with socket in client connect mode") }
            return .client(address)
        }
        return .server(address, waits: waits ?? true)
    }

    /// Each element is known, or refused by name.
    private static func check(_ list: OptionList, known: Set<String>, unsupported: Set<String>) throws(QMPError) {
        for element in list.elements {
            let name = element.value == nil ? switchName(element.key) : element.key
            if known.contains(name) { continue }
            if unsupported.contains(name) {
                if element.value == "off" { continue }
                throw QMPError("Parameter '\(name)' is not supported")
            }
            throw QMPError("Invalid parameter '\(element.key)'")
        }
    }

    /// The old short forms: `server` for `server=on`, `nowait` for `wait=off`.
    private static func switchName(_ key: String) -> String {
        key.hasPrefix("no") && ["noserver", "nowait", "notelnet", "nowebsocket"].contains(key) ? String(key.dropFirst(2)) : key
    }

    /// The value of a switch; nil when it is not given.
    private static func flag(_ list: OptionList, _ name: String) throws(QMPError) -> Bool? {
        guard let element = list.elements.last(where: { $0.key == name || ($0.value == nil && $0.key == "no" + name) }) else { return nil }
        switch element.value {
        case nil: return element.key == name
        case "on", "yes", "true", "y": return true
        case "off", "no", "false", "n": return false
        case _?: throw QMPError("Parameter '\(name)' expects 'on' or 'off'")
        }
    }
}
