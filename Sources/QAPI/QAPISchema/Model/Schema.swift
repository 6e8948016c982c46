/// A schema that passed every check.
package struct Schema: Sendable {
    package struct Module: Sendable {
        /// The path as the reader names it.
        package let file: String
        /// Names of the definitions, in the order of the file.
        package var definitions: [String]
        package var freeForm: [DocBlock]
    }

    /// The order in which definitions were first met: an included file before what follows its `include`.
    package let modules: [Module]
    /// All definitions in that order.
    package let definitions: [Definition]
    let pragma: SchemaPragma
    private let byName: [String: Int]

    init(modules: [Module], definitions: [Definition], pragma: SchemaPragma) {
        self.pragma = pragma
        self.modules = modules
        self.definitions = definitions
        byName = Dictionary(definitions.enumerated().map { ($0.element.name, $0.offset) }, uniquingKeysWith: { first, _ in first })
    }

    package subscript(_ name: String) -> Definition? { byName[name].map { definitions[$0] } }

    /// The members of a struct with those of its bases in front, or the common members of a union.
    package func members(of name: String) -> [Member] {
        guard let definition = self[name] else { return [] }
        switch definition.kind {
        case .structure(let base, let members): return (base.map(self.members(of:)) ?? []) + members
        case .union(let base, _, _): return members(of: base)
        default: return []
        }
    }

    package func members(of source: MemberSource) -> [Member] {
        switch source {
        case .none: []
        case .named(let name): members(of: name)
        case .inline(let members): members
        }
    }

    /// The values of an enumeration, nil when `name` is none.
    package func values(of name: String) -> [EnumValue]? {
        guard case .enumeration(let values, _) = self[name]?.kind else { return nil }
        return values
    }

    package func isUnion(_ name: String) -> Bool {
        if case .union = self[name]?.kind { true } else { false }
    }

    /// Whether `name` is a struct or a union.
    package func isObject(_ name: String) -> Bool {
        switch self[name]?.kind {
        case .structure, .union: true
        default: false
        }
    }

    /// The JSON type of values of a type; nil when the type does not exist.
    package func jsonType(of type: TypeReference) -> JSONKind? {
        switch type {
        case .array(let element): return jsonType(of: element) == nil ? nil : .array
        case .named(let name):
            if let builtin = BuiltinType(rawValue: name) { return builtin.jsonType }
            switch self[name]?.kind {
            case .enumeration: return .string
            case .structure, .union: return .object
            case .alternate: return .value
            case .command, .event, nil: return nil
            }
        }
    }
}
