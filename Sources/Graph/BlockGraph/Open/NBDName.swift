import QAPIRuntime
import StrataBase

/// Names of NBD exports, as text and as options. Sources: the NBD URI specification, and the older `nbd:` form as QEMU's manual shows it.
enum NBDName {
    private static let defaultPort = "10809"
    private static let noURL = BlockError(.invalidArgument, "No valid URL specified")

    // MARK: From text

    /// `HOST:PORT[:exportname=NAME]` or `unix:PATH[:exportname=NAME]`, what follows `nbd:`.
    static func parse(legacy text: String) throws(BlockError) -> JSONObject {
        var address = text
        var export: String?
        if let (before, after) = text.split(at: ":exportname=") {
            address = before
            export = after.isEmpty ? nil : after
        }
        if address.isEmpty { throw BlockError(.invalidArgument, "NBD server address missing") }
        let server: JSONObject
        if address.hasPrefix("unix:") {
            server = unixServer(String(address.dropFirst(5)))
        } else {
            guard let (host, port) = hostAndPort(address), !port.isEmpty else { throw BlockError(.invalidArgument, "error parsing address '\(address)'") }
            server = inetServer(host, port)
        }
        return options(server, export)
    }

    /// `nbd://HOST[:PORT]/EXPORT`, `nbd+tcp://…`, `nbd+unix:///EXPORT?socket=PATH`.
    static func parse(uri text: String) throws(BlockError) -> JSONObject {
        guard let (scheme, afterScheme) = text.split(at: "://") else { throw noURL }
        var rest = afterScheme
        if let (before, _) = rest.split(at: "#") { rest = before }
        var query: String?
        if let (before, after) = rest.split(at: "?") { (rest, query) = (before, after) }
        var authority = rest
        var path = ""
        if let slash = rest.firstIndex(of: "/") {
            authority = String(rest[..<slash])
            path = String(rest[rest.index(after: slash)...])
        }
        if let at = authority.lastIndex(of: "@") { authority = String(authority[authority.index(after: at)...]) }
        guard let export = unescaped(path) else { throw noURL }
        if scheme == "nbd+unix" {
            guard authority.isEmpty, let (key, value) = query?.split(at: "="), key == "socket", !value.contains("&"),
                let socket = unescaped(value), !socket.isEmpty
            else { throw noURL }
            return options(unixServer(socket), export.isEmpty ? nil : export)
        }
        guard query?.isEmpty ?? true, !authority.isEmpty else { throw noURL }
        guard let (host, port) = hostAndPort(authority) ?? unescaped(authority).map({ ($0, defaultPort) }), !host.isEmpty else { throw noURL }
        return options(inetServer(host, port.isEmpty ? defaultPort : port), export.isEmpty ? nil : export)
    }

    /// `[v6]:port` or `host:port`; nil without a port. A bracketed host without a port gets the default one.
    private static func hostAndPort(_ text: String) -> (host: String, port: String)? {
        if text.hasPrefix("["), let close = text.firstIndex(of: "]") {
            let host = String(text[text.index(after: text.startIndex)..<close])
            let rest = text[text.index(after: close)...]
            if rest.isEmpty { return (host, defaultPort) }
            return rest.hasPrefix(":") ? (host, String(rest.dropFirst())) : nil
        }
        guard let colon = text.firstIndex(of: ":") else { return nil }
        return (String(text[..<colon]), String(text[text.index(after: colon)...]))
    }

    private static func inetServer(_ host: String, _ port: String) -> JSONObject {
        JSONObject(["type": "inet", "host": .string(host), "port": .string(port)])
    }

    private static func unixServer(_ path: String) -> JSONObject { JSONObject(["type": "unix", "path": .string(path)]) }

    private static func options(_ server: JSONObject, _ export: String?) -> JSONObject {
        var options = JSONObject(["driver": "nbd", "server": .object(server)])
        options["export"] = export.map(JSONValue.string)
        return options
    }

    /// Percent-encoded text in plain; nil when it is not well formed.
    private static func unescaped(_ text: String) -> String? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst().flatMap(hexDigit), let low = rest.popFirst().flatMap(hexDigit) else { return nil }
            bytes.append(high << 4 | low)
        }
        return bytes.contains(0) ? nil : String(validating: bytes, as: UTF8.self)
    }

    private static func hexDigit(_ byte: UInt8) -> UInt8? { Character(UnicodeScalar(byte)).hexDigitValue.map(UInt8.init) }

    // MARK: To text

    /// The name that opens an export by itself; nil when options are in use that no name can carry.
    static func text(_ options: JSONObject) -> String? {
        guard let server = options["server"]?.object, options["tls-creds"] == nil, options["tls-hostname"] == nil, options["x-dirty-bitmap"] == nil else { return nil }
        let export = options["export"]?.string ?? ""
        switch server["type"]?.string {
        case "unix":
            guard let path = server["path"]?.string, server["abstract"] != true else { return nil }
            return export.isEmpty ? "nbd+unix://?socket=\(path)" : "nbd+unix:///\(export)?socket=\(path)"
        case "inet":
            guard let host = server["host"]?.string, let port = server["port"]?.string else { return nil }
            let place = host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
            return export.isEmpty ? "nbd://\(place)" : "nbd://\(place)/\(export)"
        default: return nil
        }
    }
}

extension String {
    /// What stands before and after the first `separator`; nil without one.
    fileprivate func split(at separator: String) -> (before: String, after: String)? {
        let (text, pattern) = (Array(utf8), Array(separator.utf8))
        guard text.count >= pattern.count else { return nil }
        for start in 0...(text.count - pattern.count) where text[start..<start + pattern.count].elementsEqual(pattern) {
            return (String(decoding: text[..<start], as: UTF8.self), String(decoding: text[(start + pattern.count)...], as: UTF8.self))
        }
        return nil
    }
}
