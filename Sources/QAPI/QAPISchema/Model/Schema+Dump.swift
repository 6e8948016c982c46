extension Schema {
    /// The model as text, one line for each definition and indented ones for its parts; what `--dump-model` prints.
    package var dump: String {
        var lines: [String] = []
        for module in modules {
            lines.append("module \(module.file.split(separator: "/").last ?? "")")
            for name in module.definitions { if let definition = self[name] { Self.dump(definition, into: &lines) } }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func suffix(_ condition: Condition?, _ features: [Feature] = []) -> String {
        var text = ""
        if let condition { text += " if \(condition)" }
        for feature in features { text += " +\(feature.name)\(suffix(feature.condition))" }
        return text
    }

    private static func dump(_ members: [Member], into lines: inout [String]) {
        for member in members {
            lines.append("    \(member.name)\(member.isOptional ? "?" : ""): \(member.type)\(suffix(member.condition, member.features))")
        }
    }

    private static func dump(_ source: MemberSource, _ label: String, into lines: inout [String]) {
        switch source {
        case .none: break
        case .named(let name): lines.append("    \(label) \(name)")
        case .inline(let members): dump(members, into: &lines)
        }
    }

    private static func dump(_ definition: Definition, into lines: inout [String]) {
        lines.append("\(definition.keyword) \(definition.name)\(suffix(definition.condition, definition.features))")
        switch definition.kind {
        case .enumeration(let values, let prefix):
            if let prefix { lines.append("    prefix \(prefix)") }
            for value in values { lines.append("    \(value.name)\(suffix(value.condition, value.features))") }
        case .structure(let base, let members):
            if let base { lines.append("    base \(base)") }
            dump(members, into: &lines)
        case .union(let base, let discriminator, let branches):
            dump(base, "base", into: &lines)
            lines.append("    discriminator \(discriminator)")
            for branch in branches { lines.append("    case \(branch.name): \(branch.type)\(suffix(branch.condition))") }
        case .alternate(let branches):
            for branch in branches { lines.append("    case \(branch.name): \(branch.type)\(suffix(branch.condition))") }
        case .command(let details):
            dump(details.arguments, "data", into: &lines)
            if let returns = details.returns { lines.append("    returns \(returns)") }
            let flags = [
                details.isBoxed ? "boxed" : nil, details.isTyped ? nil : "untyped", details.answersSuccess ? nil : "no-success-response",
                details.allowsOutOfBand ? "oob" : nil, details.allowsPreconfig ? "preconfig" : nil, details.isCoroutine ? "coroutine" : nil,
            ].compactMap { $0 }
            if !flags.isEmpty { lines.append("    flags \(flags.joined(separator: " "))") }
        case .event(let source, let isBoxed):
            dump(source, "data", into: &lines)
            if isBoxed { lines.append("    flags boxed") }
        }
    }
}
