/// The rules that need the whole schema: references resolve, members do not collide, unions and alternates can be told apart.
///
/// Whatever is wrong inside a definition is reported at its first line, as every compiler of this language does; the message names the part.
struct SchemaChecks {
    let schema: Schema
    let pragma: SchemaPragma
    /// False for a schema of which conditions removed parts, whose documentation is still there.
    var checksDocumentation = true

    /// Features are flags in generated code elsewhere, which limits how many names a schema may use.
    private static let largestFeatureCount = 64

    func run() throws(SchemaError) {
        // Bases first: everything below walks them.
        for definition in schema.definitions { try within(definition) { () throws(SchemaError) in try checkBase(of: definition) } }
        var features: Set<String> = ["deprecated", "unstable"]
        for definition in schema.definitions {
            try within(definition) { () throws(SchemaError) in
                try check(definition)
                features.formUnion(definition.allFeatures)
                if features.count > Self.largestFeatureCount {
                    throw SchemaError(definition.location, "a schema may have \(Self.largestFeatureCount) features at most")
                }
                if checksDocumentation { try DocumentationChecks(definition, pragma)?.run() }
            }
        }
    }

    private func within(_ definition: Definition, _ body: () throws(SchemaError) -> Void) throws(SchemaError) {
        do {
            try body()
        } catch {
            var error = error
            error.definition = error.definition ?? definition.title
            throw error
        }
    }

    private func check(_ definition: Definition) throws(SchemaError) {
        let here = definition.location
        if definition.isType, let special = definition.features.first(where: { ["deprecated", "unstable"].contains($0.name) }) {
            throw SchemaError(here, "feature '\(special.name)' is not supported for types")
        }
        switch definition.kind {
        case .enumeration: break
        case .structure(_, let members):
            try checkTypes(members, at: here)
            try checkCollisions(schema.members(of: definition.name), at: here)
        case .union(let base, let discriminator, let branches): try checkUnion(definition, base, discriminator, branches)
        case .alternate(let branches): try checkAlternate(branches, at: here)
        case .command(let details):
            try checkArguments(details.arguments, isBoxed: details.isBoxed, of: definition)
            if let returns = details.returns { try checkReturns(returns, of: definition) }
        case .event(let source, let isBoxed): try checkArguments(source, isBoxed: isBoxed, of: definition)
        }
    }

    // MARK: References

    private func describe(_ type: TypeReference) -> String {
        switch type {
        case .array: "array type '\(type)'"
        case .named(let name):
            if BuiltinType(rawValue: name) != nil { "built-in type '\(name)'" } else { "\(schema[name]?.keyword ?? "") type '\(name)'" }
        }
    }

    private func checkExists(_ type: TypeReference, _ what: String, at here: SourceLocation) throws(SchemaError) {
        if schema.jsonType(of: type) == nil { throw SchemaError(here, "\(what) uses unknown type '\(type.elementName)'") }
    }

    private func checkTypes(_ members: [Member], at here: SourceLocation) throws(SchemaError) {
        for member in members { try checkExists(member.type, "member '\(member.name)'", at: here) }
    }

    private func checkBase(of definition: Definition) throws(SchemaError) {
        let here = definition.location
        var next: String?
        switch definition.kind {
        case .structure(let base, _): next = base
        case .union(.named(let base), _, _): next = base
        default: return
        }
        var seen: Set<String> = [definition.name]
        while let name = next {
            try checkExists(.named(name), "'base'", at: here)
            guard case .structure(let grandparent, _) = schema[name]?.kind else {
                throw SchemaError(here, "'base' must be a struct, not \(describe(.named(name)))")
            }
            guard seen.insert(name).inserted else { throw SchemaError(here, "object \(definition.name) contains itself") }
            next = grandparent
        }
    }

    private func checkCollisions(_ members: [Member], at here: SourceLocation) throws(SchemaError) {
        var seen: [String: Member] = [:]
        for member in members {
            if let earlier = seen.updateValue(member, forKey: NameRules.folded(member.name)) {
                throw SchemaError(here, "member '\(member.name)' collides with member '\(earlier.name)' of the base type")
            }
        }
    }

    // MARK: Unions and alternates

    private func checkUnion(_ definition: Definition, _ base: MemberSource, _ discriminator: String, _ branches: [Branch])
        throws(SchemaError)
    {
        let here = definition.location
        let common = schema.members(of: base)
        try checkTypes(common, at: here)
        guard let tag = common.first(where: { $0.name == discriminator }) else {
            throw SchemaError(here, "discriminator '\(discriminator)' is not a member of 'base'")
        }
        guard case .named(let enumeration) = tag.type, let values = schema.values(of: enumeration) else {
            throw SchemaError(here, "discriminator member '\(discriminator)' must be of enum type")
        }
        if tag.isOptional { throw SchemaError(here, "discriminator member '\(discriminator)' must not be optional") }
        if tag.condition != nil { throw SchemaError(here, "discriminator member '\(discriminator)' must not be conditional") }
        if values.isEmpty { throw SchemaError(here, "union has no branches, since enum '\(enumeration)' has no values") }
        for branch in branches {
            guard values.contains(where: { $0.name == branch.name }) else {
                throw SchemaError(here, "branch '\(branch.name)' is not a value of enum type '\(enumeration)'")
            }
            try checkExists(branch.type, "branch '\(branch.name)'", at: here)
            guard schema.isObject(branch.type.elementName) else {
                throw SchemaError(here, "branch '\(branch.name)' cannot use \(describe(branch.type)): it must be a struct or union")
            }
            for member in try members(ofBranch: branch.type.elementName, of: definition, [definition.name]) {
                if let clash = common.first(where: { NameRules.folded($0.name) == NameRules.folded(member.name) }) {
                    throw SchemaError(
                        here, "member '\(member.name)' of type '\(branch.type)' collides with base member '\(clash.name)'")
                }
            }
        }
    }

    /// All that may stand in the object of a branch, also inside the branches of a union that is one.
    private func members(ofBranch name: String, of union: Definition, _ path: Set<String>) throws(SchemaError) -> [Member] {
        if path.contains(name) { throw SchemaError(union.location, "object \(union.name) contains itself") }
        var members = schema.members(of: name)
        if case .union(_, _, let branches) = schema[name]?.kind {
            for branch in branches { members += try self.members(ofBranch: branch.type.elementName, of: union, path.union([name])) }
        }
        return members
    }

    /// The JSON types by which a branch is recognised must differ; so must a string from text that stands for another type.
    private func checkAlternate(_ branches: [Branch], at here: SourceLocation) throws(SchemaError) {
        var users: [JSONKind: String] = [:]
        for branch in branches {
            try checkExists(branch.type, "branch '\(branch.name)'", at: here)
            guard let kind = schema.jsonType(of: branch.type), kind != .value else {
                throw SchemaError(here, "branch '\(branch.name)' cannot use \(describe(branch.type))")
            }
            if let other = users.updateValue(branch.name, forKey: kind == .int ? .number : kind) {
                throw SchemaError(here, "branch '\(branch.name)' can't be distinguished from '\(other)'")
            }
        }
        guard let text = branches.first(where: { schema.jsonType(of: $0.type) == .string }) else { return }
        let values = schema.values(of: text.type.elementName)?.map(\.name)
        for branch in branches {
            let clashes: Bool =
                switch schema.jsonType(of: branch.type) {
                case .boolean: values.map { $0.contains { ["on", "off"].contains($0) } } ?? true
                case .int, .number:
                    values.map { $0.contains { $0.first.map { $0.isNumber || $0 == "-" || $0 == "+" } ?? false } } ?? true
                default: false
                }
            if clashes { throw SchemaError(here, "branch '\(branch.name)' can't be distinguished from '\(text.name)'") }
        }
    }

    // MARK: Commands and events

    private func checkArguments(_ source: MemberSource, isBoxed: Bool, of definition: Definition) throws(SchemaError) {
        let here = definition.location
        if case .named(let name) = source {
            try checkExists(.named(name), "'data'", at: here)
            guard schema.isObject(name) else { throw SchemaError(here, "'data' cannot take \(describe(.named(name)))") }
            if schema.isUnion(name), !isBoxed {
                throw SchemaError(here, "'data' can take union type '\(name)' only with 'boxed': true")
            }
        }
        if case .inline(let members) = source { try checkTypes(members, at: here) }
        if !isBoxed, let member = schema.members(of: source).first(where: { $0.condition != nil }) {
            throw SchemaError(here, "conditional member '\(member.name)' of 'data' requires 'boxed': true")
        }
    }

    private func checkReturns(_ returns: TypeReference, of definition: Definition) throws(SchemaError) {
        try checkExists(returns, "'returns'", at: definition.location)
        if pragma.commandReturns.contains(definition.name) { return }
        guard schema.isObject(returns.elementName) else {
            throw SchemaError(
                definition.location, "'returns' cannot take \(describe(returns)): it must be an object or an array of objects")
        }
    }
}
