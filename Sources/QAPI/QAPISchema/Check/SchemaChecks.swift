/// The rules that need the whole schema: references resolve, members do not collide, unions and alternates can be told apart.
struct SchemaChecks {
    let schema: Schema
    let pragma: SchemaPragma

    func run() throws(SchemaError) {
        for definition in schema.definitions {
            do {
                try check(definition)
            } catch {
                var error = error
                error.definition = error.definition ?? definition.title
                throw error
            }
        }
    }

    private func check(_ definition: Definition) throws(SchemaError) {
        let here = definition.location
        switch definition.kind {
        case .enumeration(let values, _): try checkDocumentation(definition, members: values.map(\.name))
        case .structure(let base, let members):
            if let base { try checkBase(base, of: definition) }
            try checkTypes(members)
            try checkCollisions(schema.members(of: definition.name))
            try checkDocumentation(definition, members: members.map(\.name))
        case .union(let base, let discriminator, let branches): try checkUnion(definition, base, discriminator, branches)
        case .alternate(let branches):
            try checkAlternate(branches)
            try checkDocumentation(definition, members: branches.map(\.name))
        case .command(let details):
            try checkArguments(details.arguments, isBoxed: details.isBoxed, of: definition)
            if let returns = details.returns { try checkReturns(returns, of: definition) }
        case .event(let source, let isBoxed): try checkArguments(source, isBoxed: isBoxed, of: definition)
        }
        for feature in definition.documentation?.features ?? [] where !featureNames(of: definition).contains(feature.name) {
            throw SchemaError(at(feature.line, here), "documented feature '\(feature.name)' does not exist")
        }
    }

    private func at(_ line: Int, _ location: SourceLocation) -> SourceLocation {
        SourceLocation(file: location.file, line: line, includedFrom: location.includedFrom)
    }

    // MARK: References

    private func checkExists(_ type: TypeReference, _ what: String, at location: SourceLocation) throws(SchemaError) {
        if schema.jsonType(of: type) == nil { throw SchemaError(location, "\(what) uses unknown type '\(type.elementName)'") }
    }

    private func checkTypes(_ members: [Member]) throws(SchemaError) {
        for member in members { try checkExists(member.type, "member '\(member.name)'", at: member.location) }
    }

    private func checkBase(_ base: String, of definition: Definition) throws(SchemaError) {
        var seen: Set<String> = [definition.name]
        var next: String? = base
        while let name = next {
            guard let parent = schema[name], parent.isType else {
                throw SchemaError(definition.location, "'base' uses unknown type '\(name)'")
            }
            guard case .structure(let grandparent, _) = parent.kind else {
                throw SchemaError(definition.location, "'base' cannot use \(parent.keyword) type '\(name)'")
            }
            guard seen.insert(name).inserted else { throw SchemaError(definition.location, "object \(definition.name) contains itself") }
            next = grandparent
        }
    }

    private func checkCollisions(_ members: [Member]) throws(SchemaError) {
        var seen: [String: Member] = [:]
        for member in members {
            if let earlier = seen.updateValue(member, forKey: NameRules.folded(member.name)) {
                throw SchemaError(member.location, "member '\(member.name)' collides with member '\(earlier.name)' of the base type")
            }
        }
    }

    // MARK: Unions and alternates

    private func checkUnion(_ definition: Definition, _ base: MemberSource, _ discriminator: String, _ branches: [Branch])
        throws(SchemaError)
    {
        let here = definition.location
        if case .named(let name) = base {
            guard case .structure = schema[name]?.kind else {
                throw SchemaError(here, "'base' must be the name of a struct, not '\(name)'")
            }
            try checkBase(name, of: definition)
        }
        let common = schema.members(of: base)
        try checkTypes(common)
        guard let tag = common.first(where: { $0.name == discriminator }) else {
            throw SchemaError(here, "discriminator '\(discriminator)' is not a member of 'base'")
        }
        if tag.isOptional { throw SchemaError(here, "discriminator member '\(discriminator)' must not be optional") }
        if tag.condition != nil { throw SchemaError(here, "discriminator member '\(discriminator)' must not be conditional") }
        guard case .named(let enumeration) = tag.type, let values = schema.values(of: enumeration) else {
            throw SchemaError(here, "discriminator member '\(discriminator)' must be of enum type")
        }
        for branch in branches {
            guard values.contains(where: { $0.name == branch.name }) else {
                throw SchemaError(branch.location, "branch '\(branch.name)' is not a value of enum type '\(enumeration)'")
            }
            let name = branch.type.elementName
            try checkExists(branch.type, "branch '\(branch.name)'", at: branch.location)
            guard schema.isObject(name) else {
                throw SchemaError(branch.location, "branch '\(branch.name)' cannot use non-object type '\(name)'")
            }
            if name == definition.name { throw SchemaError(branch.location, "branch '\(branch.name)' contains the union itself") }
            for member in schema.members(of: name) {
                if let clash = common.first(where: { NameRules.folded($0.name) == NameRules.folded(member.name) }) {
                    throw SchemaError(
                        branch.location, "member '\(member.name)' of type '\(name)' collides with base member '\(clash.name)'")
                }
            }
        }
        if case .inline(let members) = base { try checkDocumentation(definition, members: members.map(\.name)) }
    }

    /// The JSON types by which a branch is recognised must differ; so must a string from text that stands for another type.
    private func checkAlternate(_ branches: [Branch]) throws(SchemaError) {
        var users: [JSONKind: String] = [:]
        func claim(_ kind: JSONKind, for branch: Branch) throws(SchemaError) {
            if let other = users[kind] {
                throw SchemaError(branch.location, "branch '\(branch.name)' can't be distinguished from '\(other)'")
            }
        }
        for branch in branches {
            try checkExists(branch.type, "branch '\(branch.name)'", at: branch.location)
            guard let kind = schema.jsonType(of: branch.type), kind != .value else {
                throw SchemaError(branch.location, "branch '\(branch.name)' cannot use type '\(branch.type)'")
            }
            let merged: JSONKind = kind == .int ? .number : kind
            try claim(merged, for: branch)
            users[merged] = branch.name
        }
        guard let text = branches.first(where: { schema.jsonType(of: $0.type) == .string }) else { return }
        for branch in branches {
            let values = schema.values(of: text.type.elementName)?.map(\.name)
            let clashes: Bool =
                switch schema.jsonType(of: branch.type) {
                case .boolean: values.map { $0.contains { ["on", "off"].contains($0) } } ?? true
                case .int, .number:
                    values.map { $0.contains { $0.first.map { $0.isNumber || $0 == "-" || $0 == "+" } ?? false } } ?? true
                default: false
                }
            if clashes { throw SchemaError(branch.location, "branch '\(branch.name)' can't be distinguished from '\(text.name)'") }
        }
    }

    // MARK: Commands and events

    private func checkArguments(_ source: MemberSource, isBoxed: Bool, of definition: Definition) throws(SchemaError) {
        switch source {
        case .none: try checkDocumentation(definition, members: [])
        case .inline(let members):
            try checkTypes(members)
            try checkDocumentation(definition, members: members.map(\.name))
        case .named(let name):
            guard let type = schema[name], type.isType else { throw SchemaError(definition.location, "'data' uses unknown type '\(name)'") }
            guard schema.isObject(name) else { throw SchemaError(definition.location, "'data' cannot take \(type.keyword) type '\(name)'") }
            if schema.isUnion(name), !isBoxed {
                throw SchemaError(definition.location, "'data' can take union type '\(name)' only with 'boxed': true")
            }
        }
    }

    private func checkReturns(_ returns: TypeReference, of definition: Definition) throws(SchemaError) {
        try checkExists(returns, "'returns'", at: definition.location)
        if pragma.commandReturns.contains(definition.name) { return }
        guard schema.isObject(returns.elementName) else {
            throw SchemaError(definition.location, "'returns' cannot take type '\(returns)': it must be an object or an array of objects")
        }
    }

    // MARK: Documentation

    private func featureNames(of definition: Definition) -> Set<String> {
        var names = Set(definition.features.map(\.name))
        func add(_ members: [Member]) { for member in members { names.formUnion(member.features.map(\.name)) } }
        switch definition.kind {
        case .enumeration(let values, _): for value in values { names.formUnion(value.features.map(\.name)) }
        case .structure(_, let members): add(members)
        case .union(.inline(let members), _, _), .event(.inline(let members), _): add(members)
        case .command(let details): if case .inline(let members) = details.arguments { add(members) }
        default: break
        }
        return names
    }

    private func checkDocumentation(_ definition: Definition, members: [String]) throws(SchemaError) {
        guard let documentation = definition.documentation else { return }
        for section in documentation.members where !members.contains(section.name) {
            throw SchemaError(at(section.line, definition.location), "documented member '\(section.name)' does not exist")
        }
        for section in documentation.tagged {
            if case .command = definition.kind { continue }
            if section.name == "Returns" || section.name == "Errors" {
                throw SchemaError(at(section.line, definition.location), "'\(section.name)' section is only valid for commands")
            }
        }
        if pragma.isDocumentationRequired, !pragma.documentation.contains(definition.name) {
            for member in members where !documentation.members.contains(where: { $0.name == member }) {
                throw SchemaError(documentation.location, "member '\(member)' is not documented")
            }
        }
    }
}
