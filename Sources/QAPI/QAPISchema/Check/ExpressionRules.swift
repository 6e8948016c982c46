/// Turns one expression into a definition: which keys it may have and what each must look like. Nothing here looks at other definitions.
///
/// Whatever is wrong inside is reported at the first line of the expression; the message names the part.
struct ExpressionRules {
    let pragma: SchemaPragma
    private var names: NameRules { NameRules(pragma: pragma) }

    init(pragma: SchemaPragma) { self.pragma = pragma }

    private static let keywords = ["enum", "struct", "union", "alternate", "command", "event"]

    func definition(_ expression: SyntaxExpression, module: String) throws(SchemaError) -> Definition {
        let node = expression.node
        let found = Self.keywords.filter { node[$0] != nil }
        guard found.count == 1, let keyword = found.first else {
            throw SchemaError(
                node.location, "expression must have exactly one key of \(Self.keywords.map { "'\($0)'" }.joined(separator: ", "))")
        }
        guard let name = node[keyword]?.string else { throw SchemaError(node.location, "'\(keyword)' key must have a string value") }
        let title = "\(keyword) '\(name)'"
        let documentation = expression.documentation
        if let documentation, documentation.symbol == nil {
            throw SchemaError(documentation.location, "documentation right before a definition must begin with its name", in: title)
        }
        if let symbol = documentation?.symbol, symbol != name {
            throw SchemaError(node.location, "documentation comment is for '\(symbol)'", in: title)
        }
        if documentation == nil, pragma.isDocumentationRequired {
            throw SchemaError(node.location, "documentation comment required", in: title)
        }
        do {
            let kind = try kind(keyword, name, node)
            let condition = try condition(node["if"], of: "'\(keyword)'")
            return Definition(
                name: name, kind: kind, condition: condition, features: try features(node["features"], of: name),
                documentation: documentation, location: node.location, module: module)
        } catch {
            throw SchemaError(node.location, error.message, in: title)
        }
    }

    private func kind(_ keyword: String, _ name: String, _ node: SyntaxNode) throws(SchemaError) -> Definition.Kind {
        let here = node.location
        switch keyword {
        case "enum":
            try names.checkType(name, keyword, at: here)
            try keys(node, required: ["enum", "data"], optional: ["if", "features", "prefix"])
            return try enumeration(name, node)
        case "struct":
            try names.checkType(name, keyword, at: here)
            try keys(node, required: ["struct", "data"], optional: ["base", "if", "features"])
            let base = node["base"]
            if let base, base.string == nil { throw SchemaError(base.location, "'base' must be the name of a struct") }
            return .structure(base: base?.string, members: try members(node["data"], "'data'", of: name))
        case "union":
            try names.checkType(name, keyword, at: here)
            try keys(node, required: ["union", "base", "discriminator", "data"], optional: ["if", "features"])
            guard let discriminator = node["discriminator"]?.string else { throw SchemaError(here, "'discriminator' must be a string") }
            return .union(
                base: try source(node["base"], "'base'", of: name), discriminator: discriminator,
                branches: try branches(node["data"], of: name, isUnion: true))
        case "alternate":
            try names.checkType(name, keyword, at: here)
            try keys(node, required: ["alternate", "data"], optional: ["if", "features"])
            let branches = try branches(node["data"], of: name, isUnion: false)
            if branches.isEmpty { throw SchemaError(here, "'data' must not be empty") }
            return .alternate(branches)
        case "command":
            try names.checkCommand(name, at: here)
            try keys(
                node, required: ["command"],
                optional: [
                    "data", "returns", "boxed", "if", "features", "gen", "success-response", "allow-oob", "allow-preconfig", "coroutine",
                ])
            return .command(try command(name, node))
        default:
            try names.checkEvent(name, at: here)
            try keys(node, required: ["event"], optional: ["data", "boxed", "if", "features"])
            let isBoxed = try flag("boxed", node, mustBe: true)
            if isBoxed, node["data"] == nil { throw SchemaError(here, "'boxed': true requires 'data'") }
            return .event(try source(node["data"], "'data'", of: name, isBoxed: isBoxed), isBoxed: isBoxed)
        }
    }

    private func keys(_ node: SyntaxNode, required: [String], optional: [String], what: String? = nil) throws(SchemaError) {
        let members = node.object ?? []
        let suffix = what.map { "\($0) " } ?? ""
        for key in required where !members.contains(where: { $0.key == key }) {
            throw SchemaError(node.location, "\(suffix)misses key '\(key)'")
        }
        for member in members where !required.contains(member.key) && !optional.contains(member.key) {
            throw SchemaError(member.location, "\(suffix)has unknown key '\(member.key)'")
        }
    }

    /// A flag that exists only to differ from its default.
    private func flag(_ key: String, _ node: SyntaxNode, mustBe value: Bool) throws(SchemaError) -> Bool {
        guard let flag = node[key] else { return false }
        guard flag.bool == value else { throw SchemaError(flag.location, "flag '\(key)' may only use \(value) value") }
        return true
    }

    private func command(_ name: String, _ node: SyntaxNode) throws(SchemaError) -> CommandDetails {
        let isBoxed = try flag("boxed", node, mustBe: true)
        if isBoxed, node["data"] == nil { throw SchemaError(node.location, "'boxed': true requires 'data'") }
        var details = CommandDetails(arguments: try source(node["data"], "'data'", of: name, isBoxed: isBoxed))
        details.isBoxed = isBoxed
        if let returns = node["returns"] { details.returns = try type(returns, "'returns'") }
        details.answersSuccess = try !flag("success-response", node, mustBe: false)
        details.isTyped = try !flag("gen", node, mustBe: false)
        details.allowsOutOfBand = try flag("allow-oob", node, mustBe: true)
        details.allowsPreconfig = try flag("allow-preconfig", node, mustBe: true)
        details.isCoroutine = try flag("coroutine", node, mustBe: true)
        if details.allowsOutOfBand, details.isCoroutine {
            throw SchemaError(node.location, "flags 'allow-oob' and 'coroutine' are incompatible")
        }
        return details
    }

    private func enumeration(_ name: String, _ node: SyntaxNode) throws(SchemaError) -> Definition.Kind {
        guard let list = node["data"]?.array else { throw SchemaError(node.location, "'data' must be an array") }
        let prefix = node["prefix"]
        if let prefix, prefix.string == nil { throw SchemaError(prefix.location, "'prefix' must be a string") }
        var values: [EnumValue] = []
        for element in list {
            let value: EnumValue
            if let name = element.string {
                value = EnumValue(name: name, condition: nil, features: [])
            } else {
                guard element.object != nil else { throw SchemaError(element.location, "'data' member must be a string or an object") }
                try keys(element, required: ["name"], optional: ["if", "features"], what: "'data' member")
                guard let valueName = element["name"]?.string else {
                    throw SchemaError(element.location, "'data' member requires a string name")
                }
                value = EnumValue(
                    name: valueName, condition: try condition(element["if"], of: "'data' member '\(valueName)'"),
                    features: try features(element["features"], of: name))
            }
            try names.checkMember(value.name, "'data' member", of: name, at: element.location, mayStartWithDigit: true)
            if let clash = values.first(where: { NameRules.folded($0.name) == NameRules.folded(value.name) }) {
                throw SchemaError(element.location, "value '\(value.name)' collides with value '\(clash.name)'")
            }
            values.append(value)
        }
        return .enumeration(values, prefix: prefix?.string)
    }

    /// Members given by the name of a type or written out.
    private func source(_ node: SyntaxNode?, _ what: String, of definition: String, isBoxed: Bool = false) throws(SchemaError)
        -> MemberSource
    {
        guard let node else { return .none }
        if let name = node.string { return .named(name) }
        guard node.object != nil else { throw SchemaError(node.location, "\(what) should be a type name or an object") }
        if isBoxed { throw SchemaError(node.location, "\(what) should be a type name when 'boxed' is true") }
        return .inline(try members(node, what, of: definition))
    }

    private func members(_ node: SyntaxNode?, _ what: String, of definition: String) throws(SchemaError) -> [Member] {
        guard let node, let pairs = node.object else {
            throw SchemaError(node?.location ?? SourceLocation(file: "", line: 0), "\(what) must be an object")
        }
        var members: [Member] = []
        for pair in pairs {
            let isOptional = pair.key.hasPrefix("*")
            let name = isOptional ? String(pair.key.dropFirst()) : pair.key
            try names.checkMember(name, "\(what) member", of: definition, at: pair.location)
            try names.checkNotReserved(name, "\(what) member", at: pair.location)
            if let clash = members.first(where: { NameRules.folded($0.name) == NameRules.folded(name) }) {
                throw SchemaError(pair.location, "\(what) member '\(name)' collides with \(what) member '\(clash.name)'")
            }
            let (type, condition, features) = try typed(pair, "\(what) member '\(name)'", of: definition)
            members.append(
                Member(name: name, type: type, isOptional: isOptional, condition: condition, features: features))
        }
        return members
    }

    private func branches(_ node: SyntaxNode?, of definition: String, isUnion: Bool) throws(SchemaError) -> [Branch] {
        guard let node, let pairs = node.object else {
            throw SchemaError(node?.location ?? SourceLocation(file: "", line: 0), "'data' must be an object")
        }
        var branches: [Branch] = []
        for pair in pairs {
            // The branches of a union are values of its enumeration, which is where their names are checked.
            if !isUnion { try names.checkMember(pair.key, "'data' member", of: definition, at: pair.location) }
            if let clash = branches.first(where: { NameRules.folded($0.name) == NameRules.folded(pair.key) }) {
                throw SchemaError(pair.location, "branch '\(pair.key)' collides with branch '\(clash.name)'")
            }
            let (type, condition, features) = try typed(pair, "'data' member '\(pair.key)'", of: definition, allowsFeatures: false)
            _ = features
            if isUnion, case .array = type { throw SchemaError(pair.location, "'data' member '\(pair.key)' cannot be an array") }
            branches.append(Branch(name: pair.key, type: type, condition: condition))
        }
        return branches
    }

    /// `'member': 'type'` or `'member': { 'type': 'type', 'if': ..., 'features': ... }`.
    private func typed(
        _ pair: SyntaxNode.Member, _ what: String, of definition: String, allowsFeatures: Bool = true
    ) throws(SchemaError) -> (TypeReference, Condition?, [Feature]) {
        guard pair.value.object != nil else { return (try type(pair.value, what), nil, []) }
        try keys(pair.value, required: ["type"], optional: allowsFeatures ? ["if", "features"] : ["if"], what: what)
        guard let node = pair.value["type"] else { throw SchemaError(pair.location, "\(what) misses key 'type'") }
        return (try type(node, what), try condition(pair.value["if"], of: what), try features(pair.value["features"], of: definition))
    }

    private func type(_ node: SyntaxNode, _ what: String) throws(SchemaError) -> TypeReference {
        if let name = node.string { return .named(name) }
        guard let list = node.array else { throw SchemaError(node.location, "\(what) should be a type name or an array of one") }
        guard list.count == 1, let name = list[0].string else {
            throw SchemaError(node.location, "\(what): array type must contain single type name")
        }
        return .array(.named(name))
    }

    private func features(_ node: SyntaxNode?, of definition: String) throws(SchemaError) -> [Feature] {
        guard let node else { return [] }
        guard let list = node.array else { throw SchemaError(node.location, "'features' must be an array") }
        var features: [Feature] = []
        for element in list {
            let feature: Feature
            if let name = element.string {
                feature = Feature(name: name, condition: nil)
            } else {
                guard element.object != nil else { throw SchemaError(element.location, "'features' member must be a string or an object") }
                try keys(element, required: ["name"], optional: ["if"], what: "'features' member")
                guard let name = element["name"]?.string else {
                    throw SchemaError(element.location, "'features' member requires a string name")
                }
                feature = Feature(name: name, condition: try condition(element["if"], of: "'features' member '\(name)'"))
            }
            try names.checkMember(feature.name, "'features' member", of: definition, at: element.location)
            if features.contains(where: { $0.name == feature.name }) {
                throw SchemaError(element.location, "'features' member '\(feature.name)' appears twice")
            }
            features.append(feature)
        }
        return features
    }

    private func condition(_ node: SyntaxNode?, of what: String) throws(SchemaError) -> Condition? {
        guard let node else { return nil }
        return try parse(node, of: what)
    }

    private func parse(_ node: SyntaxNode, of what: String) throws(SchemaError) -> Condition {
        if let name = node.string {
            guard let first = name.first, first.isLetter || first == "_",
                name.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") })
            else { throw SchemaError(node.location, "'if' condition '\(name)' of \(what) is not a valid identifier") }
            return .defined(name)
        }
        guard let members = node.object else { throw SchemaError(node.location, "'if' condition of \(what) must be a string or an object") }
        guard members.count == 1 else {
            throw SchemaError(node.location, "'if' condition of \(what) must have one key of 'all', 'any' and 'not'")
        }
        let operand = members[0].value
        switch members[0].key {
        case "not": return .not(try parse(operand, of: what))
        case "all", "any":
            guard let list = operand.array, !list.isEmpty else {
                throw SchemaError(node.location, "'\(members[0].key)' condition of \(what) must be a non-empty array")
            }
            var conditions: [Condition] = []
            for element in list { conditions.append(try parse(element, of: what)) }
            return members[0].key == "all" ? .all(conditions) : .any(conditions)
        default: throw SchemaError(node.location, "'if' condition of \(what) has unknown key '\(members[0].key)'")
        }
    }
}
