import QAPIRuntime
import StrataBase

/// A file name with the protocol that may stand in front: `disk.img`, `file:disk.img`, `nbd://host`.
struct FileName: Hashable {
    /// The options of the protocol node.
    let options: JSONObject

    /// - Throws: for protocols that we do not speak.
    init(parsing text: String) throws(BlockError) {
        var path = text[...]
        if let name = Self.protocolName(of: text) {
            switch name {
            case "file": path = text.dropFirst(5)
            case "nbd", "nbd+tcp", "nbd+unix":
                throw BlockError(.unsupported, "Protocol '\(name)' is not supported by this version")
            default: throw BlockError(.invalidArgument, "Unknown protocol '\(name)'")
            }
        }
        guard !path.isEmpty else { throw BlockError(.invalidArgument, "The 'file' block driver requires a file name") }
        var options = JSONObject()
        options["driver"] = "file"
        options["filename"] = .string(String(path))
        self.options = options
    }

    /// What stands before the first colon, unless a slash comes first: `./a:b` is a path.
    static func protocolName(of text: String) -> String? {
        guard let end = text.utf8.firstIndex(where: { $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: "/") }) else { return nil }
        return text.utf8[end] == UInt8(ascii: ":") ? String(text[..<end]) : nil
    }
}
