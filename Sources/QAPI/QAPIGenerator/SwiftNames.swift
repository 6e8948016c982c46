package import QAPISchema

/// How names of a schema become names in Swift. Wire names stay as they are in strings.
package enum SwiftNames {
    private static let keywords: Set<String> = [
        "actor", "any", "as", "associatedtype", "async", "await", "break", "case", "catch", "class", "continue", "default", "defer",
        "deinit",
        "do", "else", "enum", "extension", "fallthrough", "false", "fileprivate", "for", "func", "guard", "if", "import", "in", "inout",
        "internal", "is", "let", "nil", "operator", "precedencegroup", "private", "protocol", "public", "repeat", "rethrows", "return",
        "static", "struct", "subscript", "super", "switch", "throw", "throws", "true", "try", "typealias", "var", "where", "while",
    ]
    /// Names that mean something else in a generated type even with backticks.
    private static let taken: Set<String> = ["self", "init", "json", "branch", "hashValue", "allCases", "rawValue", "type"]

    /// Types of the standard library that generated code speaks of: a definition of that name would hide them.
    private static let libraryTypes: Set<String> = [
        "Any", "Array", "Bool", "Double", "Error", "Hashable", "Int", "Int16", "Int32", "Int8", "Never", "Optional", "Protocol", "Result",
        "Self", "Sendable", "Set", "String", "Type", "UInt16", "UInt32", "UInt64", "UInt8",
    ]

    /// The public types of the runtime, for the same reason; a test compares the list with the sources.
    package static let runtimeTypes: Set<String> = [
        "Boxed", "CommandEntry", "CompatPolicy", "DecodingContext", "DecodingPath", "JSONError", "JSONLimits", "JSONObject",
        "JSONStreamParser", "JSONValue", "KeyValueParser", "ObjectDecoder", "ObjectEncoder", "OptionTextParser", "QAPIEmpty", "QAPIEnum", "QAPIEvent",
        "QAPIInteger", "QAPINull", "QAPIObject", "QAPIValue", "QMPError", "QMPErrorClass", "QType", "SpecialFeatures",
    ]

    /// The words of a name. Downstream names lose the punctuation of their prefix.
    private static func words(_ name: String) -> [Substring] {
        name.split { $0 == "-" || $0 == "_" || $0 == "." }
    }

    private static func capitalized(_ word: some StringProtocol) -> String {
        word.prefix(1).uppercased() + word.dropFirst()
    }

    private static func isUppercase(_ name: some StringProtocol) -> Bool {
        !name.contains(where: \.isLowercase)
    }

    /// `blockdev-add` and `BLOCK_EXPORT_DELETED` become `BlockdevAdd` and `BlockExportDeleted`; a name in camel case stays.
    package static func type(_ name: String) -> String {
        let swift = words(name).map { isUppercase($0) && name.contains("_") ? capitalized($0.lowercased()) : capitalized($0) }.joined()
        return libraryTypes.contains(swift) || runtimeTypes.contains(swift) ? swift + "_" : swift
    }

    /// `null-co` becomes `nullCo`, `QCOW2` becomes `qcow2`, `512` becomes `_512`, `default` is quoted.
    package static func member(_ name: String) -> String {
        var parts = words(name).map(String.init)
        guard !parts.isEmpty else { return "_" }
        if isUppercase(name) { parts = parts.map { $0.lowercased() } }
        var result = (parts[0].prefix(1).lowercased() + parts[0].dropFirst()) + parts.dropFirst().map { capitalized($0) }.joined()
        if result.first?.isNumber == true { result = "_" + result }
        if taken.contains(result) && result != "type" { return result + "_" }
        return keywords.contains(result) ? "`\(result)`" : result
    }

    /// The Swift type for a type of the schema.
    package static func type(of reference: TypeReference) -> String {
        switch reference {
        case .array(let element): return "[\(type(of: element))]"
        case .named(let name):
            switch BuiltinType(rawValue: name) {
            case .str: return "String"
            case .number: return "Double"
            case .int, .int64, .size: return "Int"
            case .int8: return "Int8"
            case .int16: return "Int16"
            case .int32: return "Int32"
            case .uint8: return "UInt8"
            case .uint16: return "UInt16"
            case .uint32: return "UInt32"
            case .uint64: return "UInt64"
            case .bool: return "Bool"
            case .null: return "QAPINull"
            case .any: return "JSONValue"
            case .qtype: return "QType"
            case nil: return type(name)
            }
        }
    }

    /// The names of several members; two that would become one are kept apart.
    package static func members(_ names: [String]) -> [String: String] {
        var used: Set<String> = []
        var result: [String: String] = [:]
        for name in names {
            var swift = member(name)
            while !used.insert(swift).inserted { swift += "_" }
            result[name] = swift
        }
        return result
    }

    /// The name of the file that holds a module's types. The build-tool plugin derives the same name by the same rule.
    package static func file(ofModule path: String) -> String {
        let base = path.split(separator: "/").last.map(String.init) ?? path
        let stem = base.hasSuffix(".json") ? String(base.dropLast(5)) : base
        return "\(stem.split { $0 == "-" || $0 == "_" || $0 == "." }.map { capitalized($0) }.joined())+Generated.swift"
    }

    /// The name of the module as part of Swift names: `block-core.json` gives `BlockCore`.
    package static func module(_ path: String) -> String {
        String(file(ofModule: path).dropLast("+Generated.swift".count))
    }
}
