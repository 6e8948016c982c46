/// What `pragma` directives switch on, for all of a schema.
struct SchemaPragma: Sendable {
    var isDocumentationRequired = false
    /// Commands whose names may contain underscores.
    var commandNames: Set<String> = []
    /// Commands that may return something other than an object or an array of objects.
    var commandReturns: Set<String> = []
    /// Definitions whose members may stay undocumented.
    var documentation: Set<String> = []
    /// Types, commands and events whose members may break the naming rules.
    var memberNames: Set<String> = []

    private static let lists = [
        "command-name-exceptions", "command-returns-exceptions", "documentation-exceptions", "member-name-exceptions",
    ]

    mutating func apply(_ node: SyntaxNode) throws(SchemaError) {
        guard let members = node.object else { throw SchemaError(node.location, "value of 'pragma' must be an object") }
        for member in members {
            if member.key == "doc-required" {
                guard let value = member.value.bool else { throw SchemaError(member.location, "pragma 'doc-required' must be boolean") }
                isDocumentationRequired = value
                continue
            }
            guard Self.lists.contains(member.key) else { throw SchemaError(member.location, "unknown pragma '\(member.key)'") }
            var names: Set<String> = []
            guard let list = member.value.array else {
                throw SchemaError(member.location, "pragma '\(member.key)' must be a list of strings")
            }
            for element in list {
                guard let name = element.string else {
                    throw SchemaError(member.location, "pragma '\(member.key)' must be a list of strings")
                }
                names.insert(name)
            }
            switch member.key {
            case "command-name-exceptions": commandNames.formUnion(names)
            case "command-returns-exceptions": commandReturns.formUnion(names)
            case "documentation-exceptions": documentation.formUnion(names)
            default: memberNames.formUnion(names)
            }
        }
    }
}
