/// A token of the schema language: JSON's punctuation, single-quoted strings, two constants, and comments that document.
struct SchemaToken {
    enum Kind: Hashable {
        case punctuation(UInt8)
        case string(String)
        case bool(Bool)
        /// A documentation block: the lines between the two `##`, without their `#`.
        case documentation([DocLine])
        case end
    }
    let kind: Kind
    let location: SourceLocation

    /// The token as an error names it.
    var name: String {
        switch kind {
        case .punctuation(let byte): "'\(Character(Unicode.Scalar(byte)))'"
        case .string(let text): "string '\(text)'"
        case .bool(let value): value ? "'true'" : "'false'"
        case .documentation: "documentation comment"
        case .end: "end of file"
        }
    }
}

/// One line of a documentation block.
package struct DocLine: Hashable, Sendable {
    package let text: String
    package let line: Int
}

/// Cuts a schema file into tokens. There are no numbers, no double quotes and no null in this language.
struct SchemaLexer {
    private let bytes: [UInt8]
    private let file: String
    private let includedFrom: [String]
    private var position = 0
    private var line = 1

    init(_ bytes: [UInt8], file: String, includedFrom: [String]) {
        self.bytes = bytes
        self.file = file
        self.includedFrom = includedFrom
    }

    private var location: SourceLocation { SourceLocation(file: file, line: line, includedFrom: includedFrom) }

    mutating func next() throws(SchemaError) -> SchemaToken {
        while position < bytes.count {
            let byte = bytes[position]
            let start = location
            switch byte {
            case UInt8(ascii: "\n"): newLine()
            case UInt8(ascii: " "), 0x09, 0x0b, 0x0c, 0x0d: position += 1
            case UInt8(ascii: "#"):
                let text = restOfLine()
                if text == "##" { return SchemaToken(kind: .documentation(try documentation(from: start)), location: start) }
                if text.hasPrefix("##") { throw SchemaError(start, "junk after '##' at start of documentation comment") }
            case UInt8(ascii: "{"), UInt8(ascii: "}"), UInt8(ascii: "["), UInt8(ascii: "]"), UInt8(ascii: ":"), UInt8(ascii: ","):
                position += 1
                return SchemaToken(kind: .punctuation(byte), location: start)
            case UInt8(ascii: "'"): return SchemaToken(kind: .string(try string()), location: start)
            default:
                if let word = take("true") ?? take("false") { return SchemaToken(kind: .bool(word == "true"), location: start) }
                throw SchemaError(start, "stray '\(word())'")
            }
        }
        return SchemaToken(kind: .end, location: location)
    }

    /// The newline at the end of the file begins no line: the end is named by the last line that there is.
    private mutating func newLine() {
        position += 1
        if position < bytes.count { line += 1 }
    }

    private mutating func take(_ word: String) -> String? {
        let utf8 = Array(word.utf8)
        guard bytes[position...].starts(with: utf8) else { return nil }
        if position + utf8.count < bytes.count, Self.isWord(bytes[position + utf8.count]) { return nil }
        position += utf8.count
        return word
    }

    private static func isWord(_ byte: UInt8) -> Bool {
        (byte | 0x20 >= UInt8(ascii: "a") && byte | 0x20 <= UInt8(ascii: "z")) || (byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9"))
            || byte == UInt8(ascii: "_")
    }

    /// What stands here, up to a place where another token could begin.
    private func word() -> String {
        let rest = bytes[position...]
        let end = rest.dropFirst().firstIndex { !Self.isWord($0) } ?? rest.endIndex
        return String(decoding: Self.isWord(bytes[position]) ? rest[..<end] : rest.prefix(1), as: UTF8.self)
    }

    /// The text from here to the end of the line, which stays unread.
    private mutating func restOfLine() -> String {
        let end = bytes[position...].firstIndex(of: UInt8(ascii: "\n")) ?? bytes.endIndex
        var text = bytes[position..<end]
        position = end
        while let last = text.last, last == UInt8(ascii: "\r") || last == UInt8(ascii: " ") { text.removeLast() }
        return String(decoding: text, as: UTF8.self)
    }

    /// A string ends on its line. The one escape is that of the backslash itself.
    private mutating func string() throws(SchemaError) -> String {
        let start = location
        position += 1
        var text: [UInt8] = []
        while position < bytes.count, bytes[position] != UInt8(ascii: "\n") {
            var byte = bytes[position]
            position += 1
            if byte == UInt8(ascii: "'") { return String(decoding: text, as: UTF8.self) }
            if byte == UInt8(ascii: "\\") {
                guard position < bytes.count, bytes[position] == UInt8(ascii: "\\") else {
                    throw SchemaError(start, "unknown escape in string")
                }
                byte = bytes[position]
                position += 1
            } else if byte < 0x20 || byte >= 0x7f {
                throw SchemaError(start, "funny character in string")
            }
            text.append(byte)
        }
        throw SchemaError(start, "missing terminating \"'\"")
    }

    /// The lines up to the closing `##`. Empty lines of the file between them mean nothing.
    private mutating func documentation(from start: SourceLocation) throws(SchemaError) -> [DocLine] {
        var lines: [DocLine] = []
        while true {
            while position < bytes.count, let byte = Optional(bytes[position]), byte == 0x20 || (0x09...0x0d).contains(byte) {
                if byte == UInt8(ascii: "\n") { newLine() } else { position += 1 }
            }
            guard position < bytes.count, bytes[position] == UInt8(ascii: "#") else {
                throw SchemaError(location, "documentation comment that begins on line \(start.line) must end with '##'")
            }
            let text = restOfLine()
            if text == "##" { return lines }
            if text.hasPrefix("##") { throw SchemaError(location, "junk after '##' at end of documentation comment") }
            if text == "#" {
                lines.append(DocLine(text: "", line: line))
            } else if text.hasPrefix("# ") {
                lines.append(DocLine(text: String(text.dropFirst(2)), line: line))
            } else {
                throw SchemaError(location, "missing space after '#' in documentation comment")
            }
        }
    }
}
