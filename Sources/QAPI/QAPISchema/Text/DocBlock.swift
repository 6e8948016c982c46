/// A documentation block: text about a definition, its members and features, and tagged sections; or free text between definitions.
package struct DocBlock: Hashable, Sendable {
    package struct Section: Hashable, Sendable {
        /// The name of a member or feature, or a tag such as `Returns`.
        package let name: String
        package var text: [String]
        package let line: Int
    }

    /// The name of the definition that the block documents; nil for free text.
    package let symbol: String?
    package let location: SourceLocation
    /// The text before the first section.
    package private(set) var body: [String] = []
    package private(set) var members: [Section] = []
    package private(set) var features: [Section] = []
    /// Returns, Errors, Since and TODO.
    package private(set) var tagged: [Section] = []

    private static let tags = ["Returns", "Errors", "Since", "TODO"]
    private static let retiredTags = ["Note", "Notes", "Example", "Examples"]

    private enum Place { case body, member, features, feature, tagged }

    init(_ lines: [DocLine], at location: SourceLocation) throws(SchemaError) {
        self.location = location
        var lines = lines[...]
        while let first = lines.first, first.text.isEmpty { lines.removeFirst() }
        guard let first = lines.first, first.text.hasPrefix("@") else {
            symbol = nil
            body = lines.map(\.text)
            for line in lines where line.text.hasPrefix("@") {
                throw SchemaError(Self.at(line, location), "unrecognized line in free-form documentation")
            }
            return
        }
        guard first.text.hasSuffix(":") else { throw SchemaError(Self.at(first, location), "line should end with ':'") }
        let name = String(first.text.dropFirst().dropLast())
        guard !name.isEmpty, !name.contains(" ") else { throw SchemaError(Self.at(first, location), "name required after '@'") }
        symbol = name
        try parse(lines.dropFirst())
    }

    private static func at(_ line: DocLine, _ location: SourceLocation) -> SourceLocation {
        SourceLocation(file: location.file, line: line.line, includedFrom: location.includedFrom)
    }

    private mutating func parse(_ lines: ArraySlice<DocLine>) throws(SchemaError) {
        var place = Place.body
        for line in lines {
            let here = Self.at(line, location)
            if let (name, text) = Self.argument(line.text) {
                let section = Section(name: name, text: text.isEmpty ? [] : [text], line: line.line)
                let isFeature = place == .features || place == .feature
                if (isFeature ? features : members).contains(where: { $0.name == name }) {
                    throw SchemaError(here, "'\(name)' is documented twice")
                }
                if isFeature {
                    features.append(section)
                    place = .feature
                } else {
                    if place == .tagged { throw SchemaError(here, "description of '@\(name):' follows a section") }
                    members.append(section)
                    place = .member
                }
            } else if line.text == "Features:" {
                if !features.isEmpty { throw SchemaError(here, "duplicated 'Features:' line") }
                place = .features
            } else if let (tag, text) = Self.tag(line.text, Self.tags) {
                if tag != "TODO", tagged.contains(where: { $0.name == tag }) { throw SchemaError(here, "duplicated '\(tag)' section") }
                tagged.append(Section(name: tag, text: text.isEmpty ? [] : [text], line: line.line))
                place = .tagged
            } else if let (tag, _) = Self.tag(line.text, Self.retiredTags) {
                throw SchemaError(here, "'\(tag):' is not a section; write it as reST directive")
            } else {
                try append(line, &place, here)
            }
        }
        if place == .features { throw SchemaError(location, "feature descriptions expected after 'Features:'") }
    }

    private mutating func append(_ line: DocLine, _ place: inout Place, _ here: SourceLocation) throws(SchemaError) {
        // Text at the margin after a section begins free text again; indented text continues the section.
        let isIndented = line.text.isEmpty || line.text.hasPrefix(" ")
        let text = String(line.text.drop { $0 == " " })
        switch place {
        case .features:
            if !line.text.isEmpty { throw SchemaError(here, "feature descriptions expected after 'Features:'") }
        case .body: body.append(line.text)
        case _ where !isIndented:
            body.append(line.text)
            place = .body
        case .member: members[members.count - 1].text.append(text)
        case .feature: features[features.count - 1].text.append(text)
        case .tagged: tagged[tagged.count - 1].text.append(text)
        }
    }

    /// Splits `@name: text`.
    private static func argument(_ line: String) -> (String, String)? {
        guard line.hasPrefix("@"), let colon = line.firstIndex(of: ":") else { return nil }
        let name = line[line.index(after: line.startIndex)..<colon]
        guard !name.isEmpty, !name.contains(" ") else { return nil }
        return (String(name), String(line[line.index(after: colon)...].drop { $0 == " " }))
    }

    private static func tag(_ line: String, _ tags: [String]) -> (String, String)? {
        guard let colon = line.firstIndex(of: ":"), let tag = tags.first(where: { $0 == line[..<colon] }) else { return nil }
        return (tag, String(line[line.index(after: colon)...].drop { $0 == " " }))
    }

    /// The text of a member, one line each.
    package func text(ofMember name: String) -> [String] { members.first { $0.name == name }?.text ?? [] }
}
