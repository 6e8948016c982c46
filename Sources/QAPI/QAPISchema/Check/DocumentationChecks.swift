/// Whether a documentation block and the definition behind it speak of the same things.
struct DocumentationChecks {
    private let definition: Definition
    private let documentation: DocBlock
    private let pragma: SchemaPragma

    /// Nil when there is no block to check.
    init?(_ definition: Definition, _ pragma: SchemaPragma) {
        guard let documentation = definition.documentation else { return nil }
        self.definition = definition
        self.documentation = documentation
        self.pragma = pragma
    }

    func run() throws(SchemaError) {
        try checkMembers()
        try checkFeatures()
        try checkSections()
    }

    private func error(_ line: Int, _ message: String) -> SchemaError {
        SchemaError(SourceLocation(file: definition.location.file, line: line, includedFrom: definition.location.includedFrom), message)
    }

    private static func list(_ sections: [DocBlock.Section]) -> String { sections.map { "'\($0.name)'" }.joined(separator: ", ") }

    /// Members are documented where they are written: not with a command that takes them by the name of a type.
    private func checkMembers() throws(SchemaError) {
        let members = definition.ownMembers
        let unknown = documentation.members.filter { !members.contains($0.name) }
        if let first = unknown.first {
            throw error(first.line, "documented member\(unknown.count > 1 ? "s" : "") \(Self.list(unknown)) do\(unknown.count > 1 ? "" : "es") not exist")
        }
        if !pragma.isDocumentationRequired || pragma.documentation.contains(definition.name) { return }
        let missing = members.filter { member in !documentation.members.contains { $0.name == member } }
        if !missing.isEmpty {
            let names = missing.map { "'\($0)'" }.joined(separator: ", ")
            throw error(documentation.location.line, "member\(missing.count > 1 ? "s" : "") \(names) \(missing.count > 1 ? "are" : "is") not documented")
        }
    }

    private func checkFeatures() throws(SchemaError) {
        let features = definition.allFeatures
        let unknown = documentation.features.filter { !features.contains($0.name) }
        if let first = unknown.first {
            throw error(first.line, "documented feature\(unknown.count > 1 ? "s" : "") \(Self.list(unknown)) do\(unknown.count > 1 ? "" : "es") not exist")
        }
        for feature in features where !documentation.features.contains(where: { $0.name == feature }) {
            throw SchemaError(definition.location, "feature '\(feature)' is not documented")
        }
    }

    private func checkSections() throws(SchemaError) {
        for section in documentation.tagged where section.name == "Returns" || section.name == "Errors" {
            guard case .command(let details) = definition.kind else {
                throw error(section.line, "'\(section.name)' section is only valid for commands")
            }
            if section.name == "Returns", details.returns == nil {
                throw error(section.line, "'Returns' section, but the command returns nothing")
            }
        }
    }
}

extension Definition {
    /// The names of the members, values or branches that are written in this definition itself.
    package var ownMembers: [String] {
        switch kind {
        case .enumeration(let values, _): values.map(\.name)
        case .structure(_, let members): members.map(\.name)
        case .union(.inline(let members), _, _), .event(.inline(let members), _): members.map(\.name)
        case .alternate(let branches): branches.map(\.name)
        case .command(let details): if case .inline(let members) = details.arguments { members.map(\.name) } else { [] }
        case .union, .event: []
        }
    }

    /// The names of the features of the definition and of its own parts, each once.
    package var allFeatures: [String] {
        let parts: [[Feature]]
        switch kind {
        case .enumeration(let values, _): parts = values.map(\.features)
        case .structure(_, let members): parts = members.map(\.features)
        case .union(.inline(let members), _, _), .event(.inline(let members), _): parts = members.map(\.features)
        case .command(let details): if case .inline(let members) = details.arguments { parts = members.map(\.features) } else { parts = [] }
        case .alternate, .union, .event: parts = []
        }
        var names: [String] = []
        for feature in features + parts.joined() where !names.contains(feature.name) { names.append(feature.name) }
        return names
    }
}
