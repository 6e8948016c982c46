package import QAPIRuntime
package import StrataBase

/// What command lines have always taken and the QMP schema does not: sizes with a suffix where it makes plain integers of them, and the address of an
/// NBD server as `path`, or `host` and `port`.
package enum LegacyOptions {
    /// Members that are sizes in bytes, of whatever driver.
    private static let sizes: Set = [
        "align", "cache-size", "l2-cache-entry-size", "l2-cache-size", "log-sector-size", "max-discard", "max-transfer", "max-write-zero", "offset",
        "opt-discard", "opt-write-zero", "prealloc-align", "prealloc-size", "refcount-cache-size", "size",
    ]

    /// - Throws: for addresses that contradict each other or are not there.
    package static func resolved(in options: JSONObject) throws(BlockError) -> JSONObject {
        var options = options
        for (key, value) in options.members.map({ ($0.key, $0.value) }) { options[key] = try resolved(value, named: key) }
        if options["driver"]?.string == "nbd" { try nameServer(in: &options) }
        return options
    }

    private static func resolved(_ value: JSONValue, named key: String) throws(BlockError) -> JSONValue {
        switch value {
        case .string(let text):
            if sizes.contains(key), let bytes = ByteSize.parse(text) { return .integer(bytes) }
            return value
        case .object(let object): return .object(try resolved(in: object))
        case .array(let list):
            var elements: [JSONValue] = []
            for element in list { elements.append(try resolved(element, named: "")) }
            return .array(elements)
        default: return value
        }
    }

    private static func nameServer(in options: inout JSONObject) throws(BlockError) {
        let (path, host, port) = (options["path"], options["host"], options["port"])
        let isLegacy = path != nil || host != nil || port != nil
        if options["server"] != nil {
            if isLegacy { throw BlockError(.invalidArgument, "Cannot use 'server' and path/host/port at the same time") }
            return
        }
        var server = JSONObject()
        switch (path, host) {
        case (.some, .some): throw BlockError(.invalidArgument, "path and host may not be used at the same time")
        case (let path?, nil):
            if port != nil { throw BlockError(.invalidArgument, "port may not be used without host") }
            server["type"] = "unix"
            server["path"] = path
        case (nil, let host?):
            server["type"] = "inet"
            server["host"] = host
            server["port"] = port ?? "10809"
        case (nil, nil): throw BlockError(.invalidArgument, "NBD server address missing")
        }
        for key in ["path", "host", "port"] { options[key] = nil }
        options["server"] = .object(server)
    }
}
