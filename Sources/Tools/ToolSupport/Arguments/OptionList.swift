/// A list such as `cluster_size=4k,lazy_refcounts,backing_file=a,,b`: what follows `-o` and its relatives.
///
/// Elements are separated by commas; two commas stand for one inside a value. A key without `=` is a switch that is turned on, and with
/// the prefix `no` one that is turned off; which keys are switches only the reader of the list knows, so both are kept as written.
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
