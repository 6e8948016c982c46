extension Schema {
    /// The schema as it is when exactly `defines` are defined: parts whose condition does not hold are gone.
    /// - Throws: when what is left refers to something that is gone.
    package func applying(defines: Set<String>) throws(SchemaError) -> Schema {
        func holds(_ condition: Condition?) -> Bool { condition?.holds(for: defines) ?? true }
        func kept(_ features: [Feature]) -> [Feature] { features.filter { holds($0.condition) } }
        func kept(_ members: [Member]) -> [Member] {
            members.filter { holds($0.condition) }.map { member in
                var member = member
                member.features = kept(member.features)
                return member
            }
        }
        func kept(_ source: MemberSource) -> MemberSource {
            if case .inline(let members) = source { .inline(kept(members)) } else { source }
        }
        var remaining: [Definition] = []
        for var definition in definitions where holds(definition.condition) {
            definition.features = kept(definition.features)
            switch definition.kind {
            case .enumeration(let values, let prefix):
                let values = values.filter { holds($0.condition) }.map { value in
                    var value = value
                    value.features = kept(value.features)
                    return value
                }
                definition.kind = .enumeration(values, prefix: prefix)
            case .structure(let base, let members): definition.kind = .structure(base: base, members: kept(members))
            case .union(let base, let discriminator, let branches):
                definition.kind = .union(
                    base: kept(base), discriminator: discriminator, branches: branches.filter { holds($0.condition) })
            case .alternate(let branches): definition.kind = .alternate(branches.filter { holds($0.condition) })
            case .command(var details):
                details.arguments = kept(details.arguments)
                definition.kind = .command(details)
            case .event(let source, let isBoxed): definition.kind = .event(kept(source), isBoxed: isBoxed)
            }
            remaining.append(definition)
        }
        let names = Set(remaining.map(\.name))
        let modules = modules.map { module in
            Module(file: module.file, definitions: module.definitions.filter(names.contains), freeForm: module.freeForm)
        }
        let result = Schema(modules: modules, definitions: remaining, pragma: pragma)
        do {
            try SchemaChecks(schema: result, pragma: pragma, checksDocumentation: false).run()
        } catch {
            throw SchemaError(error.location, "\(error.message), as far as conditions hold", in: error.definition)
        }
        return result
    }
}
