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
                text += "- \(link(definition.name, from: "README.md")): \(Self.sentence(definition))\n"
            }
        }
        text += "\n## Modules\n\n"
        for module in modules { text += "- [\(Self.stem(module))](\(Self.page(module)))\n" }
        return text
    }

    /// The first paragraph of a definition's text on one line.
    private static func sentence(_ definition: Definition) -> String {
        let body = definition.documentation?.body.drop { $0.isEmpty } ?? []
        return body.prefix { !$0.isEmpty }.joined(separator: " ")
    }

    private func text(of module: Schema.Module) -> String {
        let page = Self.page(module)
        var text = "# \(Self.stem(module))\n"
        for name in module.definitions { if let definition = schema[name] { text += "\n" + section(definition, page) } }
        return text
    }

    private func section(_ definition: Definition, _ page: String) -> String {
        var text = "## \(definition.name)\n\n*\(definition.keyword)*"
        if let condition = definition.condition { text += " if `\(condition)`" }
        text += "\n"
        let body = Self.paragraphs(definition.documentation?.body ?? [])
        if !body.isEmpty { text += "\n\(body)\n" }
        text += parts(definition, page)
        for section in definition.documentation?.features ?? [] {
            text += "\nFeature `\(section.name)`: \(Self.line(section.text))\n"
        }
        for section in definition.documentation?.tagged ?? [] where section.name != "TODO" {
            text += "\n\(section.name): \(Self.line(section.text))\n"
        }
        return text
    }

    /// `@name` in running text refers to a member.
    private static func references(_ text: String) -> String {
        text.split(separator: " ", omittingEmptySubsequences: false).map { word -> String in
            guard word.hasPrefix("@"), word.count > 1 else { return String(word) }
            let name = word.dropFirst().prefix { $0.isLetter || $0.isNumber || $0 == "-" || $0 == "_" }
            return "`\(name)`\(word.dropFirst(1 + name.count))"
        }.joined(separator: " ")
    }

    private static func line(_ lines: [String]) -> String { references(lines.filter { !$0.isEmpty }.joined(separator: " ")) }

    private static func paragraphs(_ lines: [String]) -> String {
        var lines = lines[...]
        while lines.first?.isEmpty == true { lines.removeFirst() }
        while lines.last?.isEmpty == true { lines.removeLast() }
        var paragraphs: [String] = []
        for line in lines {
            // Sections between paragraphs of text leave several empty lines behind.
            if line.isEmpty, paragraphs.last?.isEmpty == true { continue }
            paragraphs.append(references(line))
        }
        return paragraphs.joined(separator: "\n")
    }

    private func parts(_ definition: Definition, _ page: String) -> String {
        func described(_ name: String) -> String {
            let text = Self.line(definition.documentation?.text(ofMember: name) ?? [])
            return text.isEmpty ? "" : ": \(text)"
        }
        func rows(_ members: [Member]) -> String {
            members.map { member in
                "- `\(member.name)` (\(link(member.type, from: page))\(member.isOptional ? ", optional" : ""))\(described(member.name))\n"
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
        case .enumeration(let values, _): return "\n" + values.map { "- `\($0.name)`\(described($0.name))\n" }.joined()
        case .structure(let base, let members):
            return (base.map { "\nThe members of \(link($0, from: page))\(members.isEmpty ? "." : " and:")\n" } ?? "")
                + (members.isEmpty ? "" : "\n" + rows(members))
        case .union(let base, let discriminator, let branches):
            return source(base, "The members of") + "\nBy `\(discriminator)`, the members of:\n\n"
                + branches.map { "- `\($0.name)`: \(link($0.type, from: page))\n" }.joined()
        case .alternate(let branches):
            return "\nOne of:\n\n" + branches.map { "- \(link($0.type, from: page))\(described($0.name))\n" }.joined()
        case .command(let details):
            let result = details.returns.map { "\nReturns \(link($0, from: page)).\n" } ?? ""
            return source(details.arguments, "Arguments: the members of") + result
        case .event(let data, _): return source(data, "Data: the members of")
        }
    }
}
