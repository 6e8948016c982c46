import QAPIRuntime
import StrataBase
import ToolSupport

/// What a server says about its commands, used to give the words of a command line their types.
struct IntrospectedSchema {
    let entities: [String: JSONValue]

    /// - Parameter answer: what `query-qmp-schema` answered.
    init(_ answer: JSONValue) {
        var entities: [String: JSONValue] = [:]
        for entity in answer.array ?? [] { if let name = entity["name"]?.string { entities[name] = entity } }
        self.entities = entities
    }

    var commandNames: [String] {
        entities.values.filter { $0["meta-type"] == "command" }.compactMap { $0["name"]?.string }.sorted()
    }

    /// Turns the strings of dotted `key=value` text into the types that a command takes.
    /// Members that the server does not know stay strings: the server refuses them best.
    /// - Throws: if a word cannot be what the command wants.
    func typedArguments(_ arguments: JSONValue, of command: String) throws(ToolFailure) -> JSONValue {
        guard let type = entities[command]?["arg-type"]?.string else { return arguments }
        return try typed(arguments, type, at: "")
    }

    private func typed(_ value: JSONValue, _ type: String, at path: String) throws(ToolFailure) -> JSONValue {
        guard let entity = entities[type] else { return value }
        switch entity["meta-type"]?.string {
        case "builtin": return try scalar(value, entity["json-type"]?.string ?? "value", at: path)
        case "array":
            guard case .array(let elements) = value, let element = entity["element-type"]?.string else { return value }
            var result: [JSONValue] = []
            for (index, item) in elements.enumerated() { result.append(try typed(item, element, at: "\(path).\(index)")) }
            return .array(result)
        case "object":
            guard case .object(let object) = value else { return value }
            let types = memberTypes(of: entity, object)
            var result = JSONObject()
            for member in object.members {
                let memberPath = path.isEmpty ? member.key : "\(path).\(member.key)"
                result[member.key] =
                    try types[member.key].map { type throws(ToolFailure) in try typed(member.value, type, at: memberPath) } ?? member.value
            }
            return .object(result)
        case "alternate": return try alternate(value, entity, at: path)
        default: return value
        }
    }

    /// The members of an object, with those that its tag adds.
    func memberTypes(of entity: JSONValue, _ object: JSONObject) -> [String: String] {
        var types: [String: String] = [:]
        for member in entity["members"]?.array ?? [] {
            if let name = member["name"]?.string, let type = member["type"]?.string { types[name] = type }
        }
        guard let tag = entity["tag"]?.string, let chosen = object[tag]?.string else { return types }
        let variant = entity["variants"]?.array?.first { $0["case"]?.string == chosen }
        guard let name = variant?["type"]?.string, let branch = entities[name] else { return types }
        return types.merging(memberTypes(of: branch, object)) { common, _ in common }
    }

    private func alternate(_ value: JSONValue, _ entity: JSONValue, at path: String) throws(ToolFailure) -> JSONValue {
        let choices = (entity["members"]?.array ?? []).compactMap { $0["type"]?.string }
        func kind(_ type: String) -> String? { entities[type]?["meta-type"]?.string }
        let fitting: String? =
            switch value {
            case .object: choices.first { kind($0) == "object" }
            case .array: choices.first { kind($0) == "array" }
            // Text is text wherever it may be.
            default: choices.first { $0 == "str" || kind($0) == "enum" } ?? choices.first { kind($0) == "builtin" }
            }
        return try fitting.map { type throws(ToolFailure) in try typed(value, type, at: path) } ?? value
    }

    private func scalar(_ value: JSONValue, _ jsonType: String, at path: String) throws(ToolFailure) -> JSONValue {
        guard case .string(let text) = value else { return value }
        func refusal(_ expectation: String) -> ToolFailure { ToolFailure("Parameter '\(path)' expects \(expectation), not '\(text)'") }
        switch jsonType {
        case "int":
            if let number = Int(text) { return .integer(number) }
            if let number = UInt64(text) { return JSONValue(number) }
            guard let size = ByteSize.parse(text) else { throw refusal("an integer") }
            return .integer(size)
        case "number":
            guard let number = Double(text), number.isFinite else { throw refusal("a number") }
            return .number(number)
        case "boolean":
            switch text {
            case "on", "true", "yes": return true
            case "off", "false", "no": return false
            default: throw refusal("'on' or 'off'")
            }
        case "null": return nil
        default: return value
        }
    }
}
