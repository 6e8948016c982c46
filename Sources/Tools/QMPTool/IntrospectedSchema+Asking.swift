import QAPIRuntime

// Questions of a person at a keyboard: what may I write here?

extension IntrospectedSchema {
    /// The members that a command takes at a path, with their types. Members that a tag brings are there once the tag is given.
    func members(of command: String, at path: [String], _ given: JSONObject) -> [String: String] {
        guard var type = entities[command]?["arg-type"]?.string else { return [:] }
        var object = given
        for name in path {
            guard let entity = objectEntity(type), let next = memberTypes(of: entity, object)[name] else { return [:] }
            // Below an array stands a number.
            if entities[next]?["meta-type"] == "array" { return [:] }
            type = next
            object = object[name]?.object ?? JSONObject()
        }
        return objectEntity(type).map { memberTypes(of: $0, object) } ?? [:]
    }

    /// The object that a type is or, for an alternate, may be.
    private func objectEntity(_ type: String) -> JSONValue? {
        guard let entity = entities[type] else { return nil }
        switch entity["meta-type"]?.string {
        case "object": return entity
        case "alternate":
            return (entity["members"]?.array ?? []).compactMap { $0["type"]?.string }.compactMap { objectEntity($0) }.first
        default: return nil
        }
    }

    func hasMembers(_ type: String) -> Bool { objectEntity(type) != nil }

    /// Whether `name=value` is possible: an alternate may be a name as well as an object.
    func takesValue(_ type: String) -> Bool { entities[type]?["meta-type"] != "object" }

    func values(ofType type: String) -> [String] {
        guard let entity = entities[type] else { return [] }
        switch entity["meta-type"]?.string {
        case "enum": return (entity["values"]?.array ?? []).compactMap(\.string)
        case "builtin": return entity["json-type"] == "boolean" ? ["on", "off"] : []
        case "alternate": return (entity["members"]?.array ?? []).compactMap { $0["type"]?.string }.flatMap { values(ofType: $0) }
        default: return []
        }
    }

    /// Introspection does not tell names of nodes from other strings; their members are called so, and references to nodes are alternates of an
    /// object and a string.
    func isNodeName(member: String, type: String) -> Bool {
        if ["node-name", "node", "device", "target", "base-node", "top-node", "parent", "filter-node-name", "snapshot-file", "overlay"].contains(member) { return true }
        guard entities[type]?["meta-type"] == "alternate" else { return false }
        let kinds = (entities[type]?["members"]?.array ?? []).compactMap { $0["type"]?.string }
        return kinds.contains("str") && hasMembers(type)
    }

    /// What `help COMMAND` prints. Nil for a command that there is not.
    func help(on command: String) -> String? {
        guard let entity = entities[command], entity["meta-type"] == "command" else { return nil }
        var text = command + "\n"
        if let type = entity["arg-type"]?.string, let arguments = entities[type] { text += help(onMembersOf: arguments, indentation: "  ") }
        if let type = entity["ret-type"]?.string { text += "returns \(describe(type))\n" }
        return text
    }

    private func help(onMembersOf object: JSONValue, indentation: String) -> String {
        var text = ""
        for member in object["members"]?.array ?? [] {
            guard let name = member["name"]?.string, let type = member["type"]?.string else { continue }
            let isOptional = member.object?["default"] != nil
            text += "\(indentation)\(isOptional ? "[\(name)]" : name): \(describe(type))\n"
        }
        if let tag = object["tag"]?.string { text += "\(indentation)and what belongs to the value of \(tag)\n" }
        return text
    }

    private func describe(_ type: String) -> String {
        guard let entity = entities[type] else { return "a value" }
        switch entity["meta-type"]?.string {
        case "builtin": return entity["json-type"]?.string ?? type
        case "enum": return values(ofType: type).joined(separator: " | ")
        case "array": return "list of " + (entity["element-type"]?.string.map { describe($0) } ?? "values")
        case "alternate":
            let kinds = (entity["members"]?.array ?? []).compactMap { $0["type"]?.string }.map { describe($0) }
            return kinds.joined(separator: " or ")
        default:
            let names = (entity["members"]?.array ?? []).compactMap { $0["name"]?.string }
            return names.isEmpty ? "object" : "object with \(names.prefix(12).joined(separator: ", "))\(names.count > 12 ? ", ..." : "")"
        }
    }
}
