import IOCore
package import QAPIRuntime
package import StrataBase

/// A file name as command lines and images have it, with the protocol that may stand in front: `disk.img`, `file:disk.img`, `nbd://host/export`.
package struct FileName: Hashable {
    /// The options of the protocol node, as `blockdev-add` takes them.
    package let options: JSONObject

    /// Names inside names (`blkdebug:rules:name`) are not followed deeper than this.
    private static let deepest = 16

    /// - Throws: for protocols that nobody speaks and names that make no sense. The message does not repeat the name.
    package init(parsing text: String) throws(BlockError) { options = try Self.parse(text, depth: 0) }

    private static func parse(_ text: String, depth: Int) throws(BlockError) -> JSONObject {
        guard let name = protocolName(of: text) else { return try file(driver(ofPath: text), text) }
        let rest = String(text.utf8.dropFirst(name.utf8.count + 1)) ?? ""
        switch name {
        case "file", "host_device": return try file(name, rest)
        case "null-co", "null-aio":
            guard rest == "//" else { throw BlockError(.invalidArgument, "The only allowed filename for this driver is '\(name)://'") }
            return JSONObject(["driver": .string(name)])
        case "nbd": return rest.hasPrefix("//") ? try NBDName.parse(uri: text) : try NBDName.parse(legacy: rest)
        case "nbd+tcp", "nbd+unix": return try NBDName.parse(uri: text)
        case "blkdebug", "blkverify": return try nested(name, rest, depth)
        case "fat":
            throw BlockError(.unsupported, "A directory as a FAT disk ('fat:') is not supported", hint: "Make an image of the directory, for example with mtools or virt-make-fs.")
        default: throw BlockError(.invalidArgument, "Unknown protocol '\(name)'")
        }
    }

    /// The driver for a plain path.
    static func driver(ofPath path: String) -> String { HostFile.isBlockDevice(path) ? "host_device" : "file" }

    private static func file(_ driver: String, _ path: String) throws(BlockError) -> JSONObject {
        guard !path.isEmpty else { throw BlockError(.invalidArgument, "The '\(driver)' block driver requires a file name") }
        return JSONObject(["driver": .string(driver), "filename": .string(path)])
    }

    /// `blkdebug:RULES:IMAGE` and `blkverify:RAW:IMAGE`.
    private static func nested(_ name: String, _ rest: String, _ depth: Int) throws(BlockError) -> JSONObject {
        guard depth < deepest else { throw BlockError(.invalidArgument, "File names lie more than \(deepest) levels deep in each other") }
        guard let colon = rest.firstIndex(of: ":") else {
            throw BlockError(
                .invalidArgument, name == "blkdebug" ? "blkdebug requires both config file and image path" : "blkverify requires raw copy and original image path")
        }
        let first = String(rest[..<colon])
        let image = JSONValue.object(try parse(String(rest[rest.index(after: colon)...]), depth: depth + 1))
        if name == "blkverify" {
            return JSONObject(["driver": .string(name), "raw": .object(try parse(first, depth: depth + 1)), "test": image])
        }
        var options = JSONObject(["driver": .string(name)])
        if !first.isEmpty { options["config"] = .string(first) }
        options["image"] = image
        return options
    }

    /// What stands before the first colon, unless a slash comes first: `./a:b` is a path.
    package static func protocolName(of text: String) -> String? {
        guard let end = text.utf8.firstIndex(where: { $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: "/") }) else { return nil }
        return text.utf8[end] == UInt8(ascii: ":") ? String(text[..<end]) : nil
    }
}

extension JSONObject {
    /// The members in the order in which they stand.
    init(_ members: KeyValuePairs<String, JSONValue>) {
        self.init()
        for (key, value) in members { self[key] = value }
    }
}
