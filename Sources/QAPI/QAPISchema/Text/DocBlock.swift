/// A documentation block: text about a definition, its members and features, and tagged sections; or free text between definitions.
package struct DocBlock: Hashable, Sendable {
    package struct Section: Hashable, Sendable {
        /// The name of a member or feature, or a tag such as `Returns`.
        package let name: String
        /// Without the indentation that all lines share.
        package var text: [String]
        package let line: Int
    }

    /// The name of the definition that the block documents; nil for free text.
    package let symbol: String?
    package let location: SourceLocation
    /// Text that belongs to no section, empty lines between its paragraphs.
    package private(set) var body: [String] = []
    package private(set) var members: [Section] = []
    package private(set) var features: [Section] = []
    /// Returns, Errors, Since and TODO.
    package private(set) var tagged: [Section] = []

    init(_ lines: [DocLine], at location: SourceLocation) throws(SchemaError) {
        var parser = DocParser(lines, in: location)
        self.location = location
        guard let name = try parser.symbol() else {
            symbol = nil
            body = try parser.freeForm()
            return
        }
        symbol = name
        try parse(&parser)
    }

    /// The members stand together, before features and tagged sections; text may stand anywhere between.
    private mutating func parse(_ parser: inout DocParser) throws(SchemaError) {
        var membersAreOver = false
        while let line = parser.next(skippingBlanks: true) {
            if line.text == "Features:" {
                if !features.isEmpty { throw parser.error(line, "duplicated 'Features:' line") }
                parser.advance()
                features = try parser.descriptions()
                if features.isEmpty { throw parser.error(parser.next() ?? line, "feature descriptions expected after 'Features:'") }
                membersAreOver = true
            } else if let (name, _) = DocParser.argument(line.text) {
                if membersAreOver { throw parser.error(line, "description of '@\(name):' follows a section") }
                members = try parser.descriptions()
                membersAreOver = true
            } else if let (tag, _) = DocParser.tag(line.text) {
                if DocParser.retiredTags.contains(tag) {
                    throw parser.error(line, "'\(tag):' is not a section; write it as reST directive")
                }
                if tag != "TODO", tagged.contains(where: { $0.name == tag }) { throw parser.error(line, "duplicated '\(tag)' section") }
                let section = DocBlock.Section(name: tag, text: try parser.sectionText(), line: line.line)
                if section.text.isEmpty { throw parser.error(line, "text required after '\(tag):'") }
                tagged.append(section)
                membersAreOver = true
            } else if line.text.hasPrefix("=") {
                throw parser.error(line, "headings belong in free-form documentation, not in that of a definition")
            } else {
                if !body.isEmpty { body.append("") }
                body += parser.paragraph()
            }
        }
    }

    /// The text of a member, one line each.
    package func text(ofMember name: String) -> [String] { members.first { $0.name == name }?.text ?? [] }
}

/// Walks over the lines of a documentation block.
struct DocParser {
    private static let tags = ["Returns", "Errors", "Since", "TODO"]
    /// Forms that the language had once: a schema that still uses them means something that nobody reads any more.
    static let retiredTags = ["Note", "Notes", "Example", "Examples"]

    private var rest: ArraySlice<DocLine>
    private let location: SourceLocation

    init(_ lines: [DocLine], in location: SourceLocation) {
        rest = lines[...]
        self.location = location
    }

    func error(_ line: DocLine, _ message: String) -> SchemaError {
        SchemaError(SourceLocation(file: location.file, line: line.line, includedFrom: location.includedFrom), message)
    }

    /// The next line, which stays unread.
    mutating func next(skippingBlanks: Bool = false) -> DocLine? {
        if skippingBlanks { while rest.first?.text.isEmpty == true { rest.removeFirst() } }
        return rest.first
    }

    mutating func advance() { rest.removeFirst() }

    /// A block is about a definition when its first line says so.
    mutating func symbol() throws(SchemaError) -> String? {
        guard let first = rest.first, first.text.hasPrefix("@") else { return nil }
        guard first.text.hasSuffix(":") else { throw error(first, "line should end with ':'") }
        let name = String(first.text.dropFirst().dropLast())
        guard !name.isEmpty, !name.contains(" ") else { throw error(first, "name required after '@'") }
        advance()
        return name
    }

    func freeForm() throws(SchemaError) -> [String] {
        for line in rest {
            if let (name, _) = Self.argument(line.text) { throw error(line, "'@\(name):' is not allowed in free-form documentation") }
            if line.text.hasPrefix("="), line != rest.first, line.text.drop(while: { $0 == "=" }).hasPrefix(" ") {
                throw error(line, "'=' heading must come first in a comment block")
            }
        }
        return rest.map(\.text)
    }

    /// Descriptions of members or features as long as they follow one another.
    mutating func descriptions() throws(SchemaError) -> [DocBlock.Section] {
        var sections: [DocBlock.Section] = []
        while let line = next(skippingBlanks: true), let (name, _) = Self.argument(line.text) {
            if name.isEmpty { throw error(line, "name required after '@'") }
            if sections.contains(where: { $0.name == name }) { throw error(line, "'\(name)' is documented twice") }
            sections.append(DocBlock.Section(name: name, text: try sectionText(), line: line.line))
        }
        return sections
    }

    /// The rest of a line behind its colon and the indented lines that follow. The first of those sets the least indentation; only an
    /// empty line and then text at the margin end the section.
    mutating func sectionText() throws(SchemaError) -> [String] {
        guard let first = rest.popFirst() else { return [] }
        let start = first.text.drop { $0 != ":" }.dropFirst().drop { $0 == " " }
        var text = start.isEmpty ? [] : [String(start)]
        var indentation = 0
        var wasBlank = false
        while let line = rest.first {
            let own = line.text.prefix { $0 == " " }.count
            if line.text.isEmpty {
                text.append("")
            } else if indentation == 0 {
                if own == 0 { break }
                indentation = own
                text.append(String(line.text.dropFirst(own)))
            } else if own >= indentation {
                text.append(String(line.text.dropFirst(indentation)))
            } else if own == 0, wasBlank {
                break
            } else {
                throw error(line, "unexpected de-indent (expected at least \(indentation) spaces)")
            }
            wasBlank = line.text.isEmpty
            advance()
        }
        while text.last?.isEmpty == true { text.removeLast() }
        return Array(text.drop { $0.isEmpty })
    }

    /// Lines up to the next empty one.
    mutating func paragraph() -> [String] {
        let lines = rest.prefix { !$0.text.isEmpty }
        rest = rest.dropFirst(lines.count)
        return lines.map(\.text)
    }

    /// Splits `@name: text`.
    static func argument(_ line: String) -> (name: String, text: String)? {
        guard line.hasPrefix("@"), let colon = line.firstIndex(of: ":") else { return nil }
        let name = line[line.index(after: line.startIndex)..<colon]
        if name.contains(" ") { return nil }
        return (String(name), String(line[line.index(after: colon)...].drop { $0 == " " }))
    }

    /// Splits `Since: text`; two colons introduce a literal block and are only text here.
    static func tag(_ line: String) -> (tag: String, text: String)? {
        guard let colon = line.firstIndex(of: ":"), let tag = (tags + retiredTags).first(where: { $0 == line[..<colon] }) else { return nil }
        let text = line[line.index(after: colon)...]
        return text.hasPrefix(":") ? nil : (tag, String(text.drop { $0 == " " }))
    }
}
