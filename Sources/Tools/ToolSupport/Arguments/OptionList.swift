import QAPIRuntime

/// A list such as `cluster_size=4k,lazy_refcounts,backing_file=a,,b`: what follows `-o` and its relatives.
///
/// Elements are separated by commas; two commas stand for one inside a value. A key without `=` is a switch that is turned on, and with
/// the prefix `no` one that is turned off; which keys are switches only the reader of the list knows, so both are kept as written. In the place
/// of an element a JSON object may stand, whose members are elements; what nests is written with dots.
package struct OptionList: Sendable, Hashable {
    package struct Element: Sendable, Hashable {
        package var key: String
        /// Nil for an element without `=`.
        package var value: String?

        package init(_ key: String, _ value: String?) {
            self.key = key
            self.value = value
        }
    }

    package var elements: [Element] = []

    package init() {}

    /// - Parameter impliedKey: when given, the first element may be a bare value of this key, as in `secret,id=a`.
    package init(parsing text: String, impliedKey: String? = nil) {
        var rest = text[...]
        var isFirst = true
        while !rest.isEmpty {
            if rest.first == "{", let members = Self.takeJSON(&rest) {
                elements += members
                isFirst = false
                continue
            }
            let keyEnd = rest.firstIndex { $0 == "=" || $0 == "," } ?? rest.endIndex
            if keyEnd < rest.endIndex, rest[keyEnd] == "=" {
                let key = String(rest[..<keyEnd])
                rest = rest[rest.index(after: keyEnd)...]
                elements.append(Element(key, Self.takeValue(&rest)))
            } else if isFirst, let impliedKey {
                elements.append(Element(impliedKey, Self.takeValue(&rest)))
            } else {
                elements.append(Element(Self.takeValue(&rest), nil))
            }
            isFirst = false
        }
    }

    /// Takes a JSON object up to the comma behind it. - Returns: nil when there is none; then nothing is taken.
    private static func takeJSON(_ rest: inout Substring) -> [Element]? {
        for end in rest.indices where rest[end] == "}" {
            let next = rest.index(after: end)
            guard next == rest.endIndex || rest[next] == ",", let value = try? JSONValue(parsing: rest[..<next]),
                let members = flattened(value, [])
            else { continue }
            rest = next == rest.endIndex ? "" : rest[rest.index(after: next)...]
            return members
        }
        return nil
    }

    private static func flattened(_ value: JSONValue, _ path: [String]) -> [Element]? {
        var parts: [(String, JSONValue)]
        switch value {
        case .object(let object): parts = object.members.map { ($0.key, $0.value) }
        case .array(let values) where !path.isEmpty: parts = values.enumerated().map { (String($0), $1) }
        case .string(let text): return [Element(path.joined(separator: "."), text)]
        case .bool(let isOn): return [Element(path.joined(separator: "."), isOn ? "on" : "off")]
        case .null, .array: return nil
        default: return [Element(path.joined(separator: "."), value.text())]
        }
        var elements: [Element] = []
        for (key, part) in parts {
            guard let below = flattened(part, path + [key]) else { return nil }
            elements += below
        }
        return elements
    }

    /// Takes the characters up to a lone comma, which is consumed, and undoubles the others.
    private static func takeValue(_ rest: inout Substring) -> String {
        var value = ""
        while let character = rest.popFirst() {
            if character == "," {
                guard rest.first == "," else { break }
                rest.removeFirst()
            }
            value.append(character)
        }
        return value
    }

    /// Whether one element asks for help: `help` or `?`.
    package var asksForHelp: Bool { elements.contains { $0.value == nil && ($0.key == "help" || $0.key == "?") } }

    /// Whether several `-o` texts may be joined with commas without changing what each means: a text may be neither empty, nor start
    /// with a comma, nor end in a comma that is not part of a doubled one.
    package static func isWellFormed(_ text: String) -> Bool {
        guard let first = text.utf8.first, first != UInt8(ascii: ",") else { return false }
        return text.utf8.reversed().prefix { $0 == UInt8(ascii: ",") }.count.isMultiple(of: 2)
    }

    /// The value that counts when a key is repeated: the last.
    package subscript(key: String) -> String? { elements.last { $0.key == key }?.value }

    /// The text as it would be written in a list: commas doubled.
    package static func escaped(_ value: String) -> String {
        value.contains(",") ? value.split(separator: ",", omittingEmptySubsequences: false).joined(separator: ",,") : value
    }
}
