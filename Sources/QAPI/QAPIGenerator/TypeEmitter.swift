import QAPISchema

/// Writes the Swift types of enums, structs, unions and alternates.
struct TypeEmitter {
    let schema: Schema
    let recursion: Recursion

    func emit(_ definition: Definition, into printer: inout SwiftPrinter) {
        switch definition.kind {
        case .enumeration(let values, _): emitEnumeration(definition, values, into: &printer)
        case .structure:
            emitStructure(
                SwiftNames.type(definition.name), schema.members(of: definition.name), conformance: "QAPIObject", of: definition,
                into: &printer)
        case .union(let base, let discriminator, let branches): emitUnion(definition, base, discriminator, branches, into: &printer)
        case .alternate(let branches): emitAlternate(definition, branches, into: &printer)
        case .command, .event: break
        }
    }

    private func emitEnumeration(_ definition: Definition, _ values: [EnumValue], into printer: inout SwiftPrinter) {
        let names = SwiftNames.members(values.map(\.name))
        printer.line()
        printer.documentation(definition.documentation?.body ?? [])
        // An enum without cases cannot have raw values.
        let raw = values.isEmpty ? "" : "String, "
        printer.block("public enum \(SwiftNames.type(definition.name)): \(raw)QAPIEnum") { printer in
            for value in values {
                printer.documentation(definition.documentation?.text(ofMember: value.name) ?? [])
                printer.line("case \(names[value.name] ?? "") = \"\(value.name)\"")
            }
            if values.isEmpty {
                printer.line("public init?(rawValue: String) { return nil }")
                printer.line("public var rawValue: String { switch self {} }")
            }
            let special = values.compactMap { value in Self.special(value.features).map { (names[value.name] ?? "", $0) } }
            if special.isEmpty { return }
            printer.block("public var specialFeatures: SpecialFeatures") { printer in
                printer.block("switch self") { printer in
                    for (name, features) in special { printer.line("case .\(name): \(features)") }
                    if special.count < values.count { printer.line("default: []") }
                }
            }
        }
    }

    /// The features that policies apply to, as a literal; nil when there are none.
    static func special(_ features: [Feature]) -> String? {
        let special = features.map(\.name).filter { $0 == "deprecated" || $0 == "unstable" }
        return special.isEmpty ? nil : special.count == 1 ? "." + special[0] : "[\(special.map { "." + $0 }.joined(separator: ", "))]"
    }

    /// A struct with the given members; also used for the arguments of commands and for events.
    func emitStructure(
        _ name: String, _ members: [Member], conformance: String, of definition: Definition, header: [String] = [],
        into printer: inout SwiftPrinter
    ) {
        let names = SwiftNames.members(members.map(\.name))
        printer.line()
        printer.documentation(definition.documentation?.body ?? [])
        printer.block("public struct \(name): \(conformance)") { printer in
            for line in header { printer.line(line) }
            emitProperties(members, names, of: definition, into: &printer)
            printer.line()
            emitInitializer(members, names, branch: nil, into: &printer)
            printer.line()
            printer.block("public init(members decoder: inout ObjectDecoder) throws(QMPError)") { printer in
                for member in members { printer.line("self.\(names[member.name] ?? "") = \(decoding(member))") }
            }
            printer.line()
            printer.block("public func encodeMembers(into object: inout ObjectEncoder)") { printer in
                for member in members { printer.line(Self.encoding(member, names[member.name] ?? "")) }
            }
        }
    }

    private func emitProperties(_ members: [Member], _ names: [String: String], of definition: Definition, into printer: inout SwiftPrinter)
    {
        for member in members {
            var text = definition.documentation?.text(ofMember: member.name) ?? []
            for feature in member.features { text.append("Feature: \(feature.name).") }
            printer.documentation(text)
            let box = recursion.isBoxed(member, in: definition.name) ? "@Boxed " : ""
            printer.line("\(box)public var \(names[member.name] ?? ""): \(SwiftNames.type(of: member.type))\(member.isOptional ? "?" : "")")
        }
    }

    private func emitInitializer(_ members: [Member], _ names: [String: String], branch: String?, into printer: inout SwiftPrinter) {
        var parameters = members.map { member in
            "\(names[member.name] ?? ""): \(SwiftNames.type(of: member.type))\(member.isOptional ? "? = nil" : "")"
        }
        if let branch { parameters.insert("_ branch: \(branch)", at: 0) }
        printer.block("public init(\(parameters.joined(separator: ", ")))") { printer in
            if branch != nil { printer.line("self.branch = branch") }
            for member in members { printer.line("self.\(names[member.name] ?? "") = \(names[member.name] ?? "")") }
        }
    }

    private static func argument(_ features: [Feature]) -> String { special(features).map { ", \($0)" } ?? "" }

    private static func encoding(_ member: Member, _ name: String) -> String {
        "object.set(\"\(member.name)\", self.\(name)\(argument(member.features)))"
    }

    private func decoding(_ member: Member) -> String {
        let isSize = member.type == .named(BuiltinType.size.rawValue)
        return "try decoder.\(member.isOptional ? "optional" : "required")\(isSize ? "Size" : "")(\"\(member.name)\"\(Self.argument(member.features)))"
    }

    /// A union is a struct of the common members and an enum of the branches. The discriminator follows from the branch.
    private func emitUnion(
        _ definition: Definition, _ base: MemberSource, _ discriminator: String, _ branches: [Branch], into printer: inout SwiftPrinter
    ) {
        let common = schema.members(of: base)
        guard let tag = common.first(where: { $0.name == discriminator }), let values = schema.values(of: tag.type.elementName) else {
            return
        }
        let members = common.filter { $0.name != discriminator }
        let names = SwiftNames.members(common.map(\.name))
        let cases = SwiftNames.members(values.map(\.name))
        let payloads = Dictionary(branches.map { ($0.name, SwiftNames.type(of: $0.type)) }, uniquingKeysWith: { first, _ in first })
        let tagName = names[discriminator] ?? ""
        let tagType = SwiftNames.type(of: tag.type)
        func name(_ value: EnumValue) -> String { cases[value.name] ?? "" }

        printer.line()
        printer.documentation(definition.documentation?.body ?? [])
        printer.block("public struct \(SwiftNames.type(definition.name)): QAPIObject") { printer in
            printer.line("/// What only one value of `\(discriminator)` has.")
            printer.block("public \(recursion.isIndirect(definition.name) ? "indirect " : "")enum Branch: Hashable, Sendable") { printer in
                for value in values { printer.line("case \(name(value))\(payloads[value.name].map { "(\($0))" } ?? "")") }
            }
            printer.line()
            emitProperties(members, names, of: definition, into: &printer)
            printer.line("public var branch: Branch")
            printer.line()
            emitInitializer(members, names, branch: "Branch", into: &printer)
            printer.line()
            printer.documentation(definition.documentation?.text(ofMember: discriminator) ?? [])
            printer.block("public var \(tagName): \(tagType)") { printer in
                printer.block("switch self.branch") { printer in
                    for value in values { printer.line("case .\(name(value)): .\(name(value))") }
                }
            }
            printer.line()
            printer.block("public init(members decoder: inout ObjectDecoder) throws(QMPError)") { printer in
                for member in common {
                    if member.name == discriminator {
                        printer.line("let tag: \(tagType) = \(decoding(member))")
                    } else {
                        printer.line("self.\(names[member.name] ?? "") = \(decoding(member))")
                    }
                }
                printer.block("switch tag") { printer in
                    for value in values {
                        let payload = payloads[value.name].map { "(try \($0)(members: &decoder))" } ?? ""
                        printer.line("case .\(name(value)): self.branch = .\(name(value))\(payload)")
                    }
                }
            }
            printer.line()
            printer.block("public func encodeMembers(into object: inout ObjectEncoder)") { printer in
                for member in common { printer.line(Self.encoding(member, names[member.name] ?? "")) }
                printer.block("switch self.branch") { printer in
                    for value in values {
                        if payloads[value.name] != nil {
                            printer.line("case .\(name(value))(let members): members.encodeMembers(into: &object)")
                        } else {
                            printer.line("case .\(name(value)): break")
                        }
                    }
                }
            }
        }
    }

    /// An alternate is an enum; the JSON type of a value tells which case it is.
    private func emitAlternate(_ definition: Definition, _ branches: [Branch], into printer: inout SwiftPrinter) {
        let names = SwiftNames.members(branches.map(\.name))
        let name = SwiftNames.type(definition.name)
        func isNull(_ branch: Branch) -> Bool { branch.type == .named(BuiltinType.null.rawValue) }
        let kinds = branches.map { (branch: $0, kind: schema.jsonType(of: $0.type) ?? .value) }

        printer.line()
        printer.documentation(definition.documentation?.body ?? [])
        printer.block("public \(recursion.isIndirect(definition.name) ? "indirect " : "")enum \(name): QAPIValue") { printer in
            for branch in branches {
                printer.documentation(definition.documentation?.text(ofMember: branch.name) ?? [])
                printer.line("case \(names[branch.name] ?? "")\(isNull(branch) ? "" : "(\(SwiftNames.type(of: branch.type)))")")
            }
            printer.line()
            printer.block("public init(decoding value: JSONValue, _ context: DecodingContext) throws(QMPError)") { printer in
                printer.block("switch value") { printer in
                    if let null = branches.first(where: isNull) {
                        // Text has no other way to write null.
                        printer.line("case .null: self = .\(names[null.name] ?? "")")
                        printer.line("case .string(\"\") where context.mode.isText: self = .\(names[null.name] ?? "")")
                    }
                    for (branch, kind) in kinds where !isNull(branch) {
                        let type = SwiftNames.type(of: branch.type)
                        printer.line(
                            "case \(Self.pattern(kind)): self = .\(names[branch.name] ?? "")(try \(type)(decoding: value, context))")
                    }
                    if !kinds.contains(where: { $0.kind == .string }),
                        let (branch, _) = kinds.first(where: { [.boolean, .int, .number].contains($0.kind) })
                    {
                        let type = SwiftNames.type(of: branch.type)
                        let payload = "try \(type)(decoding: value, context)"
                        printer.line("case .string where context.mode.isText: self = .\(names[branch.name] ?? "")(\(payload))")
                    }
                    printer.line("default: throw context.wrongType(expected: \"\(definition.name)\")")
                }
            }
            printer.line()
            printer.block("public func json(_ policy: CompatPolicy) -> JSONValue") { printer in
                printer.block("switch self") { printer in
                    for branch in branches {
                        printer.line(
                            isNull(branch)
                                ? "case .\(names[branch.name] ?? ""): .null" : "case .\(names[branch.name] ?? "")(let value): value.json(policy)")
                    }
                }
            }
        }
    }

    private static func pattern(_ kind: JSONKind) -> String {
        switch kind {
        case .object: ".object"
        case .array: ".array"
        case .string: ".string"
        case .boolean: ".bool"
        case .int: ".integer, .unsigned"
        case .number: ".number, .integer, .unsigned"
        case .null: ".null"
        case .value: "_"
        }
    }
}
