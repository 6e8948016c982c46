/// Dotted `key=value` text, as `--blockdev` and its relatives take it: `driver=raw,file.driver=file,file.filename=disk.img`.
///
/// - A comma separates parameters; inside a value it is written twice.
/// - A dot in a key descends into an object; a fragment of digits is the index of an array (`bitmaps.0=x`).
/// - Giving a key again replaces its value.
/// - The first parameter may leave its key out when the option has an implied one.
/// Every scalar becomes a string; decode with the mode `.keyValue`.
public enum KeyValueParser {
    /// The deepest nesting and the largest array that text can ask for.
    static let deepest = 128

    /// - Parameter impliedKey: the key of a first parameter that has no `=`.
    /// - Throws: an error that names the parameter.
    public static func parse(_ text: String, impliedKey: String? = nil) throws(QMPError) -> JSONValue {
        try parse(text, impliedKey: impliedKey, asksForHelp: nil).value
    }

    /// Text in which a parameter `help` or `?` without a value asks what there is: `driver=qcow2,help`.
    public static func parseWithHelp(
        _ text: String, impliedKey: String? = nil
    ) throws(QMPError) -> (value: JSONValue, asksForHelp: Bool) {
        try parse(text, impliedKey: impliedKey, asksForHelp: false)
    }

    /// - Parameter asksForHelp: nil where help is not offered.
    private static func parse(
        _ text: String, impliedKey: String?, asksForHelp: Bool?
    ) throws(QMPError) -> (value: JSONValue, asksForHelp: Bool) {
        var root = Tree()
        var rest = Array(text.utf8)[...]
        var isFirst = true
        var asks = asksForHelp
        while !rest.isEmpty {
            if asks != nil, let word = ["help", "?"].first(where: { isWord($0, at: rest) }) {
                asks = true
                rest = rest.dropFirst(word.utf8.count + 1)
                isFirst = false
                continue
            }
            let (key, value) = try parameter(&rest, impliedKey: isFirst ? impliedKey : nil)
            isFirst = false
            try root.set(value, at: try fragments(of: key)[...], of: "")
        }
        return (try root.json(at: ""), asks ?? false)
    }

    /// Whether `rest` begins with a parameter that is nothing but this word.
    private static func isWord(_ word: String, at rest: ArraySlice<UInt8>) -> Bool {
        guard rest.starts(with: word.utf8) else { return false }
        let after = rest.dropFirst(word.utf8.count).first
        return after == nil || after == UInt8(ascii: ",")
    }

    /// A command-line argument that is either JSON, when it starts with a brace, or dotted text.
    /// - Returns: the value and the mode in which to decode it.
    public static func parseArgument(
        _ text: String, impliedKey: String? = nil
    ) throws(QMPError) -> (value: JSONValue, mode: DecodingContext.Mode) {
        guard text.utf8.first == UInt8(ascii: "{") else { return (try parse(text, impliedKey: impliedKey), .keyValue) }
        do throws(JSONError) {
            return (try JSONValue(parsing: text), .json)
        } catch {
            throw QMPError(error.message)
        }
    }

    private static func parameter(_ rest: inout ArraySlice<UInt8>, impliedKey: String?) throws(QMPError) -> (key: String, value: String) {
        let stop = rest.firstIndex { $0 == UInt8(ascii: "=") || $0 == UInt8(ascii: ",") } ?? rest.endIndex
        var key = String(decoding: rest[..<stop], as: UTF8.self)
        if stop < rest.endIndex, rest[stop] == UInt8(ascii: "=") {
            rest = rest[(stop + 1)...]
        } else if let impliedKey, stop > rest.startIndex {
            key = impliedKey
        } else {
            throw QMPError(stop == rest.startIndex ? "Invalid parameter ''" : "Expected '=' after parameter '\(key)'")
        }
        var value: [UInt8] = []
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: ",") {
                guard rest.first == UInt8(ascii: ",") else { break }
                rest.removeFirst()
            }
            value.append(byte)
        }
        guard let string = String(validating: value, as: UTF8.self) else { throw QMPError("Parameter '\(key)' is not valid UTF-8") }
        return (key, string)
    }

    /// Splits a key at its dots. A fragment is a name of the schema's language or an index; the first one must be a name.
    private static func fragments(of key: String) throws(QMPError) -> [String] {
        let fragments = key.split(separator: ".", omittingEmptySubsequences: false).map(String.init)
        let isFirstAName = fragments.first.map { !isIndex($0) } ?? false
        guard isFirstAName, fragments.count <= deepest, fragments.allSatisfy({ isName($0) || isIndex($0) }) else {
            throw QMPError("Invalid parameter '\(key)'")
        }
        return fragments
    }

    private static func isIndex(_ fragment: String) -> Bool {
        !fragment.isEmpty && fragment.utf8.count <= 9 && fragment.utf8.allSatisfy { $0 >= UInt8(ascii: "0") && $0 <= UInt8(ascii: "9") }
    }

    /// Letters, digits, `-` and `_` behind a letter; a downstream name may put `__domain.name_` in front, whose dot never gets here.
    private static func isName(_ fragment: String) -> Bool {
        guard let first = fragment.unicodeScalars.first, first.isASCII else { return false }
        guard first.properties.isAlphabetic || first == "_" else { return false }
        return fragment.unicodeScalars.allSatisfy {
            $0.isASCII && ($0.properties.isAlphabetic || $0 == "-" || $0 == "_" || ("0"..."9").contains($0))
        }
    }

    /// Parameters as far as they are known. Whether children form an object or an array shows only when all are there.
    private struct Tree {
        var scalar: String?
        var children: [(key: String, tree: Tree)] = []

        mutating func set(_ value: String, at keys: ArraySlice<String>, of path: String) throws(QMPError) {
            guard let key = keys.first else {
                guard children.isEmpty else { throw QMPError("Parameters '\(path).*' used inconsistently") }
                scalar = value
                return
            }
            guard scalar == nil else { throw QMPError("Parameters '\(path).*' used inconsistently") }
            let childPath = path.isEmpty ? key : "\(path).\(key)"
            if let index = children.firstIndex(where: { $0.key == key }) {
                try children[index].tree.set(value, at: keys.dropFirst(), of: childPath)
            } else {
                var tree = Tree()
                try tree.set(value, at: keys.dropFirst(), of: childPath)
                children.append((key, tree))
            }
        }

        func json(at path: String) throws(QMPError) -> JSONValue {
            if let scalar { return .string(scalar) }
            let indexed = children.count { isIndex($0.key) }
            if indexed == 0 {
                var object = JSONObject()
                for (key, tree) in children { object[key] = try tree.json(at: path.isEmpty ? key : "\(path).\(key)") }
                return .object(object)
            }
            guard indexed == children.count else { throw QMPError("Parameters '\(path).*' used inconsistently") }
            var elements: [JSONValue] = []
            let ordered = children.map { (index: Int($0.key) ?? 0, tree: $0.tree) }.sorted { $0.index < $1.index }
            for (position, element) in ordered.enumerated() {
                guard element.index == position else { throw QMPError("Parameter '\(path).\(position)' missing") }
                elements.append(try element.tree.json(at: "\(path).\(position)"))
            }
            return .array(elements)
        }
    }
}
