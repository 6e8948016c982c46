package import QAPISchema

/// The documentation back end: the reference of a schema as Markdown, one page for each module and an index.
package struct MarkdownEmitter {
    private let schema: Schema
    /// Which page defines a name.
    private let pages: [String: String]

    private init(_ schema: Schema) {
        self.schema = schema
        var pages: [String: String] = [:]
        for module in schema.modules { for name in module.definitions { pages[name] = Self.page(module) } }
        self.pages = pages
    }

    /// - Parameter title: the heading of the index.
    package static func files(for schema: Schema, titled title: String) -> [SwiftGenerator.File] {
        let emitter = MarkdownEmitter(schema)
        let modules = schema.modules.filter { !$0.definitions.isEmpty }
        var files = modules.map { SwiftGenerator.File(name: page($0), text: emitter.text(of: $0)) }
        files.append(SwiftGenerator.File(name: "README.md", text: emitter.index(of: modules, title)))
        return files
    }

    private static func stem(_ module: Schema.Module) -> String {
        let base = module.file.split(separator: "/").last.map(String.init) ?? module.file
        return base.hasSuffix(".json") ? String(base.dropLast(5)) : base
    }

    private static func page(_ module: Schema.Module) -> String { stem(module) + ".md" }

    private static func anchor(_ name: String) -> String {
        name.lowercased().filter { $0.isLetter || $0.isNumber || $0 == "-" || $0 == "_" }
    }

    private func link(_ name: String, from page: String) -> String {
        guard let target = pages[name] else { return "`\(name)`" }
        return "[`\(name)`](\(target == page ? "" : target)#\(Self.anchor(name)))"
    }

    private func link(_ type: TypeReference, from page: String) -> String {
        switch type {
        case .named(let name): link(name, from: page)
        case .array(let element): "array of \(link(element, from: page))"
        }
    }

    private func index(of modules: [Schema.Module], _ title: String) -> String {
        var text = "# \(title)\n\nGenerated from the schema by `qapi-gen --docs`. Names are those on the wire.\n"
        for (heading, keyword) in [("Commands", "command"), ("Events", "event")] {
            text += "\n## \(heading)\n\n"
            for definition in schema.definitions where definition.keyword == keyword {
                text += "- \(link(definition.name, from: "README.md")): \(sentence(definition))\n"
            }
        }
        text += "\n## Modules\n\n"
        for module in modules { text += "- [\(Self.stem(module))](\(Self.page(module)))\n" }
        return text
    }

    /// The first paragraph of a definition's text on one line.
    private func sentence(_ definition: Definition) -> String {
        let body = definition.documentation?.body.drop { $0.isEmpty } ?? []
        return references(body.prefix { !$0.isEmpty }.joined(separator: " "), from: "README.md")
    }

    private func text(of module: Schema.Module) -> String {
        let page = Self.page(module)
        var text = "# \(Self.stem(module))\n"
        for block in module.freeForm {
            let body = paragraphs(block.body.map { line in
                let depth = line.prefix { $0 == "=" }.count
                return depth > 0 && line.dropFirst(depth).hasPrefix(" ") ? "**\(line.dropFirst(depth + 1))**" : line
            }, from: page)
            if !body.isEmpty { text += "\n\(body)\n" }
        }
        for name in module.definitions { if let definition = schema[name] { text += "\n" + section(definition, page) } }
        return text
    }

    private func section(_ definition: Definition, _ page: String) -> String {
        var text = "## \(definition.name)\n\n*\(definition.keyword)*\(Self.remarks(definition.condition, definition.features))\n"
        let body = paragraphs(definition.documentation?.body ?? [], from: page)
        if !body.isEmpty { text += "\n\(body)\n" }
        text += parts(definition, page)
        for section in definition.documentation?.features ?? [] {
            text += "\nFeature `\(section.name)`: \(line(section.text, from: page))\n"
        }
        for section in definition.documentation?.tagged ?? [] where section.name != "TODO" && section.name != "Returns" {
            text += "\n\(section.name): \(line(section.text, from: page))\n"
        }
        return text
    }

    /// When a part exists and what is special about it.
    private static func remarks(_ condition: Condition?, _ features: [Feature], separator: String = "; ") -> String {
        var remarks = features.map { feature in "`\(feature.name)`" + (feature.condition.map { " if `\($0)`" } ?? "") }
        if let condition { remarks.append("if `\(condition)`") }
        return remarks.map { separator + $0 }.joined()
    }

    /// `@name` in running text refers to a definition or to a member.
    private func references(_ text: String, from page: String) -> String {
        text.split(separator: " ", omittingEmptySubsequences: false).map { word -> String in
            guard let at = word.firstIndex(of: "@"), word[..<at].allSatisfy({ "(\"'".contains($0) }) else { return String(word) }
            let rest = word[at...].dropFirst()
            let name = String(rest.prefix { $0.isLetter || $0.isNumber || $0 == "-" || $0 == "_" })
            return name.isEmpty ? String(word) : "\(word[..<at])\(link(name, from: page))\(rest.dropFirst(name.count))"
        }.joined(separator: " ")
    }

    /// Text inside a list: paragraphs after the first are indented.
    private func line(_ lines: [String], from page: String) -> String {
        let paragraphs = lines.split { $0.isEmpty }.map { $0.map { String($0.drop { $0 == " " }) }.joined(separator: " ") }
        return references(paragraphs.joined(separator: "\n\n  "), from: page)
    }

    private func paragraphs(_ lines: [String], from page: String) -> String {
        var lines = lines[...]
        while lines.first?.isEmpty == true { lines.removeFirst() }
        while lines.last?.isEmpty == true { lines.removeLast() }
        var paragraphs: [String] = []
        for line in lines {
            // Sections between paragraphs of text leave several empty lines behind.
            if line.isEmpty, paragraphs.last?.isEmpty == true { continue }
            paragraphs.append(references(line, from: page))
        }
        return paragraphs.joined(separator: "\n")
    }

    private func parts(_ definition: Definition, _ page: String) -> String {
        func described(_ name: String) -> String {
            let text = line(definition.documentation?.text(ofMember: name) ?? [], from: page)
            return text.isEmpty ? "" : ": \(text)"
        }
        func rows(_ members: [Member]) -> String {
            members.map { member in
                let optional = member.isOptional ? ", optional" : ""
                let remarks = Self.remarks(member.condition, member.features, separator: ", ")
                return "- `\(member.name)` (\(link(member.type, from: page))\(optional)\(remarks))\(described(member.name))\n"
            }.joined()
        }
        func source(_ source: MemberSource, _ what: String) -> String {
            switch source {
            case .none: ""
            case .named(let name): "\n\(what) \(link(name, from: page)).\n"
            case .inline(let members): members.isEmpty ? "" : "\n" + rows(members)
            }
        }
        switch definition.kind {
        case .enumeration(let values, _):
            return values.isEmpty ? "" : "\n" + values.map { value in
                let remarks = Self.remarks(value.condition, value.features, separator: ", ").dropFirst(2)
                return "- `\(value.name)`\(remarks.isEmpty ? "" : " (\(remarks))")\(described(value.name))\n"
            }.joined()
        case .structure(let base, let members):
            return (base.map { "\nThe members of \(link($0, from: page))\(members.isEmpty ? "." : " and:")\n" } ?? "")
                + (members.isEmpty ? "" : "\n" + rows(members))
        case .union(let base, let discriminator, let branches):
            let cases = branches.map { "- `\($0.name)`\(Self.remarks($0.condition, [], separator: " ")): \(link($0.type, from: page))\n" }
            return source(base, "The members of")
                + (cases.isEmpty ? "" : "\nBy `\(discriminator)`, the members of:\n\n" + cases.joined())
        case .alternate(let branches):
            return "\nOne of:\n\n"
                + branches.map { branch in
                    "- \(link(branch.type, from: page))\(Self.remarks(branch.condition, [], separator: " "))\(described(branch.name))\n"
                }.joined()
        case .command(let details): return source(details.arguments, "Arguments: the members of") + result(details, of: definition, page)
        case .event(let data, _): return source(data, "Data: the members of")
        }
    }

    /// What a command gives back, and how it may be run.
    private func result(_ details: CommandDetails, of definition: Definition, _ page: String) -> String {
        var text = ""
        if let returns = details.returns {
            let section = definition.documentation?.tagged.first { $0.name == "Returns" }
            let description = section.map { ": \(line($0.text, from: page))" } ?? "."
            text += "\nReturns \(link(returns, from: page))\(description)\n"
        }
        let flags = [
            details.allowsOutOfBand ? "It may be executed out of band." : nil,
            details.allowsPreconfig ? "It may be executed before the program is set up." : nil,
            details.answersSuccess ? nil : "Success is not answered.",
        ].compactMap { $0 }
        if !flags.isEmpty { text += "\n\(flags.joined(separator: " "))\n" }
        return text
    }
}
