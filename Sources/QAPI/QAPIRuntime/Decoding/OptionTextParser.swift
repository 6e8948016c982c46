/// Flat option text, the older form of command lines: `size=1G,server,id=a`.
///
/// - A comma separates options; inside a value it is written twice.
/// - An option without a value is switched on; `no` in front of its name switches it off.
/// - The first option may leave its name out when there is an implied one.
/// - Giving an option again adds a value: a list takes all of them, anything else the last.
/// There are no objects in it. Decode with the mode `.optionText`, in which lists of integers also take ranges (`1-3,,5`).
public enum OptionTextParser {
    /// - Parameter impliedName: the name of a first option that is only a value.
    /// - Throws: an error that names the option.
    public static func parse(_ text: String, impliedName: String? = nil) throws(QMPError) -> JSONValue {
        var values: [(name: String, values: [JSONValue])] = []
        var rest = text.utf8[...]
        var isFirst = true
        while !rest.isEmpty {
            let (name, value) = try option(&rest, impliedName: isFirst ? impliedName : nil)
            isFirst = false
            if let known = values.firstIndex(where: { $0.name == name }) {
                values[known].values.append(.string(value))
            } else {
                values.append((name, [.string(value)]))
            }
        }
        var object = JSONObject()
        for option in values { object[option.name] = .array(option.values) }
        return .object(object)
    }

    private static func option(_ rest: inout Substring.UTF8View, impliedName: String?) throws(QMPError) -> (name: String, value: String) {
        let stop = rest.firstIndex { $0 == UInt8(ascii: "=") || $0 == UInt8(ascii: ",") } ?? rest.endIndex
        let word = String(Substring(rest[..<stop]))
        if stop < rest.endIndex, rest[stop] == UInt8(ascii: "=") {
            if word.isEmpty { throw QMPError("Invalid parameter ''") }
            rest = rest[rest.index(after: stop)...]
            return (word, CommaList.value(&rest))
        }
        if let impliedName { return (impliedName, CommaList.value(&rest)) }
        rest = stop < rest.endIndex ? rest[rest.index(after: stop)...] : rest[stop...]
        if word.isEmpty { throw QMPError("Invalid parameter ''") }
        return word.hasPrefix("no") && word.utf8.count > 2 ? (String(word.dropFirst(2)), "off") : (word, "on")
    }
}

/// Text in which a comma separates and two commas are one.
enum CommaList {
    /// Takes the text up to a single comma, and that comma.
    static func value(_ rest: inout Substring.UTF8View) -> String {
        var value = ""
        while let comma = rest.firstIndex(of: UInt8(ascii: ",")) {
            value += String(Substring(rest[..<comma]))
            rest = rest[rest.index(after: comma)...]
            if rest.first != UInt8(ascii: ",") { return value }
            value += ","
            rest = rest.dropFirst()
        }
        value += String(Substring(rest))
        rest = rest[rest.endIndex...]
        return value
    }
}

/// Lists of integers as text: `1-3,5` is 1, 2, 3 and 5.
enum IntegerRanges {
    /// The most elements that one list may ask for.
    static let largestCount = 65_536

    /// - Throws: unless `text` is a list of integers of type `T` and of ranges in ascending order.
    static func parse<T: QAPIInteger>(_ text: String, into list: inout [T], _ context: DecodingContext) throws(QMPError) {
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            // A minus sign in front is no range.
            let dash = part.dropFirst().firstIndex(of: "-")
            guard let first = T.parsing(String(part[..<(dash ?? part.endIndex)])),
                let last = dash.map({ T.parsing(String(part[part.index(after: $0)...])) }) ?? first, first <= last
            else {
                throw context.unacceptable(expected: "\(T.schemaName) or a list of \(T.schemaName)s and ranges of them")
            }
            let (distance, overflow) = last.subtractingReportingOverflow(first)
            guard !overflow, let count = Int(exactly: distance), count < largestCount - list.count else {
                throw QMPError("Parameter '\(context.path)' asks for more than \(largestCount) numbers")
            }
            var next = first
            for _ in 0..<count {
                list.append(next)
                next += 1
            }
            list.append(last)
        }
    }
}
