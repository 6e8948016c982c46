/// A value of the schema language as it was written, before anybody asks what it means.
struct SyntaxNode {
    struct Member {
        let key: String
        let location: SourceLocation
        let value: SyntaxNode
    }
    enum Kind {
        case object([Member])
        case array([SyntaxNode])
        case string(String)
        case bool(Bool)
    }
    let kind: Kind
    let location: SourceLocation

    var string: String? { if case .string(let string) = kind { string } else { nil } }
    var object: [Member]? { if case .object(let members) = kind { members } else { nil } }
    var array: [SyntaxNode]? { if case .array(let nodes) = kind { nodes } else { nil } }
    var bool: Bool? { if case .bool(let bool) = kind { bool } else { nil } }

    subscript(_ key: String) -> SyntaxNode? { object?.first { $0.key == key }?.value }
}

/// A top-level expression of a schema file with the documentation block right in front of it, whatever that is about.
struct SyntaxExpression {
    let node: SyntaxNode
    let documentation: DocBlock?
}
