/// What names may look like. Sections of the language's description: "Naming rules and reserved names".
struct NameRules {
    let pragma: SchemaPragma

    /// The part of a name that rules of case apply to: without `__com.example_` in front of a downstream name and without `x-`.
    private static func stem(_ name: String) -> Substring? {
        var rest = name[...]
        if name.hasPrefix("__") {
            // __RFQDN_name: a domain name in reverse, then an underscore.
            rest = name.dropFirst(2)
            guard let separator = rest.firstIndex(of: "_"), separator > rest.startIndex else { return nil }
            let domain = rest[..<separator]
            guard domain.allSatisfy({ $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "." || $0 == "-") }) else { return nil }
            rest = rest[rest.index(after: separator)...]
        }
        let isExperimental = rest.lowercased().hasPrefix("x-") && rest.dropFirst(2).first.map { $0.isASCII && $0.isLetter } == true
        return isExperimental ? rest.dropFirst(2) : rest
    }

    private static func isWellFormed(_ name: Substring, mayStartWithDigit: Bool) -> Bool {
        guard let first = name.first, first.isASCII, first.isLetter || (mayStartWithDigit && first.isNumber) else { return false }
        return name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || $0 == "_") }
    }

    /// Names that differ only in this fold are one name to generators of C.
    static func folded(_ name: String) -> String {
        String(name.map { $0 == "-" || $0 == "." ? "_" : $0 })
    }

    /// - Returns: the stem of a valid name.
    private func check(_ name: String, _ what: String, at location: SourceLocation, mayStartWithDigit: Bool = false) throws(SchemaError)
        -> Substring
    {
        guard let stem = Self.stem(name), Self.isWellFormed(stem, mayStartWithDigit: mayStartWithDigit) else {
            throw SchemaError(location, "\(what) has an invalid name '\(name)'")
        }
        if Self.folded(name).hasPrefix("q_") {
            throw SchemaError(location, "\(what) has the reserved name '\(name)'")
        }
        return stem
    }

    func checkType(_ name: String, _ what: String, at location: SourceLocation) throws(SchemaError) {
        let stem = try check(name, what, at: location)
        try checkNotBuiltin(name, at: location)
        guard let first = stem.first, first.isUppercase, stem.contains(where: \.isLowercase), !stem.contains("_"), !stem.contains("-")
        else {
            throw SchemaError(location, "name of \(what) '\(name)' must use CamelCase")
        }
        if stem.hasSuffix("List") { throw SchemaError(location, "\(what) name '\(name)' should not end in 'List'") }
    }

    /// Types and commands share one space of names.
    private func checkNotBuiltin(_ name: String, at location: SourceLocation) throws(SchemaError) {
        if BuiltinType(rawValue: name) != nil { throw SchemaError(location, "built-in type '\(name)' is already defined") }
    }

    func checkCommand(_ name: String, at location: SourceLocation) throws(SchemaError) {
        let stem = try check(name, "command", at: location)
        try checkNotBuiltin(name, at: location)
        if stem.contains(where: \.isUppercase) || (stem.contains("_") && !pragma.commandNames.contains(name)) {
            throw SchemaError(location, "name of command '\(name)' must not use uppercase or '_'")
        }
    }

    func checkEvent(_ name: String, at location: SourceLocation) throws(SchemaError) {
        let stem = try check(name, "event", at: location)
        if stem.contains(where: { $0.isLowercase || $0 == "-" }) {
            throw SchemaError(location, "name of event '\(name)' must not use lowercase or '-'")
        }
    }

    /// Members, features, enum values and branches.
    func checkMember(
        _ name: String, _ what: String, of definition: String, at location: SourceLocation, mayStartWithDigit: Bool = false
    ) throws(SchemaError) {
        let stem = try check(name, what, at: location, mayStartWithDigit: mayStartWithDigit)
        if !pragma.memberNames.contains(definition), stem.contains(where: { $0.isUppercase || $0 == "_" }) {
            throw SchemaError(location, "name of \(what) '\(name)' must not use uppercase or '_'")
        }
    }

    /// Members of objects must leave room for what generators of C add.
    func checkNotReserved(_ name: String, _ what: String, at location: SourceLocation) throws(SchemaError) {
        let folded = Self.folded(name)
        if folded == "u" || folded.hasPrefix("has_") {
            throw SchemaError(location, "\(what) uses the reserved name '\(name)'")
        }
    }
}
