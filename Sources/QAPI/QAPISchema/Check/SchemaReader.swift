/// Reads a schema: the root file and all that it includes, checked.
package struct SchemaReader {
    private let read: (String) throws -> [UInt8]
    private var pragma = SchemaPragma()
    private var seen: Set<String> = []
    private var modules: [Schema.Module] = []
    /// The expressions that define something, with their modules, in the order in which they were met.
    private var expressions: [(expression: SyntaxExpression, module: Int)] = []
    private var definitions: [Definition] = []
    private var byName: [String: Int] = [:]

    private static let deepestInclude = 64

    private init(_ read: @escaping (String) throws -> [UInt8]) { self.read = read }

    /// - Parameters:
    ///   - root: the path of the first file, as errors are to name it.
    ///   - read: gives the bytes of a file by its path.
    /// - Throws: the first thing that is wrong.
    package static func schema(root: String, read: @escaping (String) throws -> [UInt8]) throws(SchemaError) -> Schema {
        var reader = SchemaReader(read)
        try reader.load(Self.normalized(root), from: nil)
        // A pragma holds for the whole schema, also for what stands before it.
        for (expression, module) in reader.expressions { try reader.define(expression, in: module) }
        let schema = Schema(modules: reader.modules, definitions: reader.definitions, pragma: reader.pragma)
        try SchemaChecks(schema: schema, pragma: reader.pragma).run()
        return schema
    }

    private mutating func load(_ file: String, from directive: SourceLocation?) throws(SchemaError) {
        guard seen.insert(file).inserted else { return }
        let chain = directive.map { [$0.description] + $0.includedFrom } ?? []
        // A folder that links to itself has a new name at every step.
        if let directive, chain.count > Self.deepestInclude { throw SchemaError(directive, "files include one another too deeply") }
        let bytes: [UInt8]
        do {
            bytes = try read(file)
        } catch {
            throw SchemaError(directive ?? SourceLocation(file: file, line: 1), "can't read schema file '\(file)': \(error)")
        }
        let position = modules.count
        modules.append(Schema.Module(file: file, definitions: [], freeForm: []))
        var parser = try SchemaParser(bytes, file: file, includedFrom: chain)
        for item in try parser.items() {
            switch item {
            case .freeForm(let block): modules[position].freeForm.append(block)
            case .expression(let expression): try take(expression, of: position)
            }
        }
    }

    private mutating func take(_ expression: SyntaxExpression, of module: Int) throws(SchemaError) {
        let node = expression.node
        if let include = node["include"] {
            try onlyKey("include", node, expression)
            guard let name = include.string else { throw SchemaError(node.location, "value of 'include' must be a string") }
            let folder = modules[module].file.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
            try load(Self.normalized(name.hasPrefix("/") || folder.isEmpty ? name : "\(folder)/\(name)"), from: node.location)
        } else if let pragma = node["pragma"] {
            try onlyKey("pragma", node, expression)
            try self.pragma.apply(pragma)
        } else {
            expressions.append((expression, module))
        }
    }

    private mutating func define(_ expression: SyntaxExpression, in module: Int) throws(SchemaError) {
        let definition = try ExpressionRules(pragma: pragma).definition(expression, module: modules[module].file)
        if let earlier = byName.updateValue(definitions.count, forKey: definition.name).map({ definitions[$0] }) {
            throw SchemaError(
                definition.location, "\(definition.title) is already defined as \(earlier.keyword) at \(earlier.location)")
        }
        modules[module].definitions.append(definition.name)
        definitions.append(definition)
    }

    private func onlyKey(_ key: String, _ node: SyntaxNode, _ expression: SyntaxExpression) throws(SchemaError) {
        if (node.object?.count ?? 0) > 1 { throw SchemaError(node.location, "invalid '\(key)' directive") }
        try expression.documentation?.mustBeFreeForm()
    }

    /// Removes `.` and `x/..`, so that a file has one name however it is included.
    private static func normalized(_ path: String) -> String {
        var parts: [Substring] = []
        for part in path.split(separator: "/", omittingEmptySubsequences: true) where part != "." {
            if part == "..", let last = parts.last, last != ".." { parts.removeLast() } else { parts.append(part) }
        }
        return (path.hasPrefix("/") ? "/" : "") + parts.joined(separator: "/")
    }
}
