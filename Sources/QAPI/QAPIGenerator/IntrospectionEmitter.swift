package import QAPISchema

/// Builds what `query-qmp-schema` answers: commands, events and the types that they reach, in QEMU's form.
///
/// Names of types are an implementation detail there, so they are masked by numbers, except those of built-in types and arrays.
package struct IntrospectionEmitter {
    private let schema: Schema
    private let unmasked: Bool
    private var numbers: [String: Int] = [:]
    /// Types still to be described.
    private var pending: [Pending] = []
    private var described: Set<String> = []
    private var entities: [String] = []

    private enum Pending {
        case type(TypeReference)
        /// A type that the schema does not name: the inline members of a command, event or union.
        case members(name: String, [Member])
    }

    /// - Returns: one JSON object a line, as the elements of an array with its brackets.
    package static func lines(of schema: Schema, unmasked: Bool = false) -> [String] {
        var emitter = IntrospectionEmitter(schema, unmasked)
        let entities = emitter.run()
        return ["["] + entities.enumerated().map { $0.element + ($0.offset == entities.count - 1 ? "" : ",") } + ["]"]
    }

    private init(_ schema: Schema, _ unmasked: Bool) {
        self.schema = schema
        self.unmasked = unmasked
    }

    private mutating func run() -> [String] {
        for definition in schema.definitions {
            switch definition.kind {
            case .command(let details):
                let arguments = source(details.arguments, "\(definition.name)-arg")
                let result = details.returns.map { use($0) } ?? empty()
                var parts = [("arg-type", quoted(arguments)), ("ret-type", quoted(result))]
                if details.allowsOutOfBand { parts.append(("allow-oob", "true")) }
                add(definition.name, "command", parts, definition.features)
            case .event(let source, _):
                let arguments = self.source(source, "\(definition.name)-arg")
                add(definition.name, "event", [("arg-type", quoted(arguments))], definition.features)
            default: break
            }
        }
        // Breadth first, so that what commands use directly comes before what that uses.
        var next = 0
        while next < pending.count {
            describe(pending[next])
            next += 1
        }
        return entities
    }

    private func quoted(_ text: String) -> String { "\"\(text)\"" }

    private mutating func add(_ name: String, _ metaType: String, _ parts: [(String, String)], _ features: [Feature] = []) {
        var parts = [("name", quoted(name)), ("meta-type", quoted(metaType))] + parts
        if !features.isEmpty { parts.append(("features", Self.list(features.map { quoted($0.name) }))) }
        entities.append(Self.object(parts))
    }

    private static func object(_ parts: [(String, String)]) -> String {
        "{" + parts.map { "\"\($0.0)\": \($0.1)" }.joined(separator: ", ") + "}"
    }

    private static func list(_ parts: [String]) -> String { "[" + parts.joined(separator: ", ") + "]" }

    // MARK: Names

    private mutating func masked(_ name: String) -> String {
        if unmasked { return name }
        let number = numbers[name] ?? numbers.count
        numbers[name] = number
        return String(number)
    }

    private mutating func enqueue(_ key: String, _ item: Pending) {
        if described.insert(key).inserted { pending.append(item) }
    }

    private mutating func empty() -> String { inline("q_empty", []) }

    private mutating func inline(_ name: String, _ members: [Member]) -> String {
        enqueue(name, .members(name: name, members))
        return masked(name)
    }

    private mutating func source(_ source: MemberSource, _ name: String) -> String {
        switch source {
        case .none: empty()
        case .named(let type): use(.named(type))
        case .inline(let members): members.isEmpty ? empty() : inline("q_obj_\(name)", members)
        }
    }

    /// Names a type and makes sure that it gets described.
    private mutating func use(_ type: TypeReference) -> String {
        switch type {
        case .array(let element):
            let name = "[\(use(element))]"
            enqueue(name, .type(type))
            return name
        case .named(let name):
            if let builtin = BuiltinType(rawValue: name), builtin != .qtype {
                // All integers are one type on the wire.
                let wire = builtin.jsonType == .int ? "int" : name
                enqueue(wire, .type(type))
                return wire
            }
            enqueue(name, .type(type))
            return masked(name)
        }
    }

    // MARK: Types

    private mutating func describe(_ item: Pending) {
        switch item {
        case .members(let name, let members): add(masked(name), "object", [("members", describe(members))])
        case .type(.array(let element)):
            let name = use(element)
            add("[\(name)]", "array", [("element-type", quoted(name))])
        case .type(.named(let name)):
            guard let definition = schema[name] else { return describeBuiltin(name) }
            describe(definition)
        }
    }

    private mutating func describeBuiltin(_ name: String) {
        guard let builtin = BuiltinType(rawValue: name) else { return }
        if builtin == .qtype {
            let values = ["none", "qnull", "qnum", "qstring", "qdict", "qlist", "qbool"]
            describeEnumeration("QType", values.map { ($0, []) }, [])
        } else {
            let wire = builtin.jsonType == .int ? "int" : name
            add(wire, "builtin", [("json-type", quoted(builtin.jsonType.rawValue))])
        }
    }

    private mutating func describe(_ members: [Member]) -> String {
        var parts: [String] = []
        for member in members {
            var part = [("name", quoted(member.name)), ("type", quoted(use(member.type)))]
            if member.isOptional { part.append(("default", "null")) }
            if !member.features.isEmpty { part.append(("features", Self.list(member.features.map { quoted($0.name) }))) }
            parts.append(Self.object(part))
        }
        return Self.list(parts)
    }

    private mutating func describeEnumeration(_ name: String, _ values: [(String, [Feature])], _ features: [Feature]) {
        let members = values.map { value in
            var part = [("name", quoted(value.0))]
            if !value.1.isEmpty { part.append(("features", Self.list(value.1.map { quoted($0.name) }))) }
            return Self.object(part)
        }
        add(masked(name), "enum", [("members", Self.list(members)), ("values", Self.list(values.map { quoted($0.0) }))], features)
    }

    private mutating func describe(_ definition: Definition) {
        let name = masked(definition.name)
        switch definition.kind {
        case .enumeration(let values, _):
            describeEnumeration(definition.name, values.map { ($0.name, $0.features) }, definition.features)
        case .structure:
            let members = describe(schema.members(of: definition.name))
            add(name, "object", [("members", members)], definition.features)
        case .union(let base, let discriminator, let branches):
            let common = schema.members(of: base)
            let members = describe(common)
            let tag = common.first { $0.name == discriminator }
            var variants: [String] = []
            // Branches as they are written, then the values that have none.
            let values = tag.flatMap { schema.values(of: $0.type.elementName) }?.map(\.name) ?? []
            let written = branches.map(\.name).filter(values.contains)
            for value in written + values.filter({ !written.contains($0) }) {
                let type = branches.first { $0.name == value }.map { use($0.type) } ?? empty()
                variants.append(Self.object([("case", quoted(value)), ("type", quoted(type))]))
            }
            add(
                name, "object", [("members", members), ("tag", quoted(discriminator)), ("variants", Self.list(variants))],
                definition.features)
        case .alternate(let branches):
            var members: [String] = []
            for branch in branches { members.append(Self.object([("type", quoted(use(branch.type)))])) }
            add(name, "alternate", [("members", Self.list(members))], definition.features)
        case .command, .event: break
        }
    }
}
