import QAPISchema

/// Where types contain themselves. A Swift struct cannot, so some edge of every cycle has to go through a box: the enums of unions and
/// alternates become `indirect`, and what is left between structs is stored in `@Boxed` members.
struct Recursion {
    private let schema: Schema
    private var edges: [String: Set<String>] = [:]
    private var indirect: Set<String> = []
    /// Everything reachable once indirect enums no longer count.
    private var reachable: [String: Set<String>] = [:]

    init(_ schema: Schema) {
        self.schema = schema
        for definition in schema.definitions where definition.isType { edges[definition.name] = Self.edges(of: definition, in: schema) }
        for definition in schema.definitions {
            switch definition.kind {
            case .union, .alternate: if closure(of: definition.name).contains(definition.name) { indirect.insert(definition.name) }
            default: break
            }
        }
        for definition in schema.definitions where indirect.contains(definition.name) {
            if case .union(let base, _, _) = definition.kind {
                edges[definition.name] = Set(schema.members(of: base).compactMap(Self.contained))
            } else {
                edges[definition.name] = []
            }
        }
        for definition in schema.definitions where definition.isType { reachable[definition.name] = closure(of: definition.name) }
    }

    private static func contained(_ member: Member) -> String? {
        if case .named(let name) = member.type { name } else { nil }
    }

    private static func edges(of definition: Definition, in schema: Schema) -> Set<String> {
        switch definition.kind {
        case .structure: return Set(schema.members(of: definition.name).compactMap(contained))
        case .union(let base, _, let branches):
            return Set(schema.members(of: base).compactMap(contained) + branches.map(\.type.elementName))
        case .alternate(let branches):
            return Set(branches.compactMap { if case .named(let name) = $0.type { name } else { nil } })
        default: return []
        }
    }

    private func closure(of name: String) -> Set<String> {
        var seen: Set<String> = []
        var pending = Array(edges[name] ?? [])
        while let next = pending.popLast() {
            if seen.insert(next).inserted { pending += edges[next] ?? [] }
        }
        return seen
    }

    /// Whether the enum of this union or alternate has to be indirect.
    func isIndirect(_ name: String) -> Bool { indirect.contains(name) }

    /// Whether a member of `owner` leads back to it.
    func isBoxed(_ member: Member, in owner: String) -> Bool {
        guard let type = Self.contained(member) else { return false }
        return type == owner || (reachable[type]?.contains(owner) ?? false)
    }
}
