/// Parses one file into expressions and documentation blocks, in the order in which they stand.
struct SchemaParser {
    enum Item {
        case expression(SyntaxExpression)
        /// A block that belongs to no definition.
        case freeForm(DocBlock)
    }

    private var lexer: SchemaLexer
    private var token: SchemaToken
    private var depth = 0

    init(_ bytes: [UInt8], file: String, includedFrom: [String]) throws(SchemaError) {
        lexer = SchemaLexer(bytes, file: file, includedFrom: includedFrom)
        token = try lexer.next()
    }

    mutating func items() throws(SchemaError) -> [Item] {
        var items: [Item] = []
        var documentation: DocBlock?
        while token.kind != .end {
            if case .documentation(let lines) = token.kind {
                if let documentation { try documentation.mustBeFreeForm() }
                let block = try DocBlock(lines, at: token.location)
                if block.symbol == nil { items.append(.freeForm(block)) }
                documentation = block
                token = try lexer.next()
                continue
            }
            guard token.kind == .punctuation(UInt8(ascii: "{")) else {
                throw SchemaError(token.location, "top-level expression must be an object, not \(token.name)")
            }
            items.append(.expression(SyntaxExpression(node: try value(), documentation: documentation)))
            documentation = nil
        }
        if let documentation { try documentation.mustBeFreeForm() }
        return items
    }

    private func expectation(_ what: String) -> SchemaError { SchemaError(token.location, "expected \(what), got \(token.name)") }

    private mutating func accept(_ punctuation: Unicode.Scalar) throws(SchemaError) -> Bool {
        guard token.kind == .punctuation(UInt8(ascii: punctuation)) else { return false }
        token = try lexer.next()
        return true
    }

    private mutating func value() throws(SchemaError) -> SyntaxNode {
        let location = token.location
        depth += 1
        defer { depth -= 1 }
        if depth > 64 { throw SchemaError(location, "expression is nested too deeply") }
        if try accept("{") { return SyntaxNode(kind: .object(try members()), location: location) }
        if try accept("[") { return SyntaxNode(kind: .array(try elements()), location: location) }
        switch token.kind {
        case .string(let text):
            token = try lexer.next()
            return SyntaxNode(kind: .string(text), location: location)
        case .bool(let bool):
            token = try lexer.next()
            return SyntaxNode(kind: .bool(bool), location: location)
        default: throw expectation("'{', '[', string, or boolean")
        }
    }

    private mutating func members() throws(SchemaError) -> [SyntaxNode.Member] {
        var members: [SyntaxNode.Member] = []
        if try accept("}") { return members }
        guard case .string = token.kind else { throw expectation("string or '}'") }
        while true {
            guard case .string(let key) = token.kind else { throw expectation("string") }
            let location = token.location
            if members.contains(where: { $0.key == key }) { throw SchemaError(location, "duplicate key '\(key)'") }
            token = try lexer.next()
            guard try accept(":") else { throw expectation("':'") }
            members.append(SyntaxNode.Member(key: key, location: location, value: try value()))
            if try accept("}") { return members }
            guard try accept(",") else { throw expectation("',' or '}'") }
        }
    }

    private mutating func elements() throws(SchemaError) -> [SyntaxNode] {
        var elements: [SyntaxNode] = []
        if try accept("]") { return elements }
        while true {
            elements.append(try value())
            if try accept("]") { return elements }
            guard try accept(",") else { throw expectation("',' or ']'") }
        }
    }
}

extension DocBlock {
    /// - Throws: when the block is about a definition, which then does not follow.
    func mustBeFreeForm() throws(SchemaError) {
        if let symbol { throw SchemaError(location, "documentation for '\(symbol)' is not followed by the definition") }
    }
}
