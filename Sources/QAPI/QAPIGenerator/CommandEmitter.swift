import QAPISchema

/// Writes the protocol of a module's command handlers, the structs of their arguments, the events, and the table of all commands.
struct CommandEmitter {
    let schema: Schema
    let types: TypeEmitter

    private func argumentsType(_ definition: Definition, _ details: CommandDetails) -> String? {
        if !details.isTyped { return "JSONObject" }
        switch details.arguments {
        case .none: return nil
        case .named(let name): return SwiftNames.type(name)
        case .inline: return SwiftNames.type(definition.name) + "Arguments"
        }
    }

    func emit(_ definition: Definition, into printer: inout SwiftPrinter) {
        switch definition.kind {
        case .command(let details):
            guard case .inline(let members) = details.arguments, details.isTyped else { return }
            types.emitStructure(
                SwiftNames.type(definition.name) + "Arguments", members, conformance: "QAPIObject", of: definition, into: &printer)
        case .event(let source, let isBoxed):
            let name = SwiftNames.type(definition.name) + "Event"
            var header = ["public static var eventName: String { \"\(definition.name)\" }"]
            if let features = TypeEmitter.special(definition.features) {
                header.append("public static var specialFeatures: SpecialFeatures { \(features) }")
            }
            if isBoxed, case .named(let type) = source, schema.isUnion(type) {
                emitBoxedEvent(name, SwiftNames.type(type), header, definition, into: &printer)
            } else {
                types.emitStructure(
                    name, schema.members(of: source), conformance: "QAPIEvent", of: definition, header: header, into: &printer)
            }
        default: break
        }
    }

    private func emitBoxedEvent(
        _ name: String, _ type: String, _ header: [String], _ definition: Definition, into printer: inout SwiftPrinter
    ) {
        printer.line()
        printer.documentation(definition.documentation?.body ?? [])
        printer.block("public struct \(name): QAPIEvent") { printer in
            for line in header { printer.line(line) }
            printer.line("public var data: \(type)")
            printer.line("public init(_ data: \(type)) { self.data = data }")
            printer.line("public init(members decoder: inout ObjectDecoder) throws(QMPError) { data = try \(type)(members: &decoder) }")
            printer.line("public func encodeMembers(into object: inout ObjectEncoder) { data.encodeMembers(into: &object) }")
        }
    }

    private func commands(of module: Schema.Module) -> [(Definition, CommandDetails)] {
        module.definitions.compactMap { name in
            guard let definition = schema[name], case .command(let details) = definition.kind else { return nil }
            return (definition, details)
        }
    }

    static func protocolName(_ module: Schema.Module) -> String { SwiftNames.module(module.file) + "Commands" }

    func hasCommands(_ module: Schema.Module) -> Bool { !commands(of: module).isEmpty }

    func emitProtocol(_ module: Schema.Module, into printer: inout SwiftPrinter) {
        guard hasCommands(module) else { return }
        printer.line()
        printer.line("/// Handlers of the commands in `\(module.file.split(separator: "/").last ?? "")`.")
        printer.line("///")
        printer.line("/// A handler may throw a `QMPError` to choose the class of the error; any other error becomes a `GenericError`.")
        printer.block("public protocol \(Self.protocolName(module)): Sendable") { printer in
            for (definition, details) in commands(of: module) {
                var text = definition.documentation?.body ?? []
                if let returns = definition.documentation?.tagged.first(where: { $0.name == "Returns" }) {
                    text += ["", "- Returns: " + returns.text.joined(separator: " ")]
                }
                printer.documentation(text)
                let argument = argumentsType(definition, details).map { "_ arguments: \($0)" } ?? ""
                let result = details.isTyped ? details.returns.map { " -> \(SwiftNames.type(of: $0))" } ?? "" : " -> JSONValue"
                printer.line("func \(SwiftNames.member(definition.name))(\(argument)) async throws\(result)")
            }
        }
    }

    /// The part that spans modules: one protocol of all handlers, the table by name, the list of events, introspection.
    func emitTable(named name: String, introspection: [String], into printer: inout SwiftPrinter) {
        let modules = schema.modules.filter { hasCommands($0) }
        printer.line()
        printer.line("/// Handlers of every command of the schema: a type that conforms has forgotten none.")
        printer.line("public protocol \(name)Commands: \((modules.map(Self.protocolName) + ["Sendable"]).joined(separator: ", ")) {}")
        printer.line()
        printer.line("/// The schema as data.")
        printer.block("public enum \(name)Table") { printer in
            printer.line("/// Every command, bound to its handler.")
            printer.block("public static func commands(_ handlers: some \(name)Commands) -> [CommandEntry]") { printer in
                let all = schema.modules.flatMap { commands(of: $0) }
                if all.isEmpty {
                    printer.line("[]")
                    return
                }
                printer.line("var entries: [CommandEntry] = []")
                for (definition, details) in all { emitEntry(definition, details, into: &printer) }
                printer.line("return entries")
            }
            printer.line()
            printer.line("/// The names of all commands.")
            let names = schema.modules.flatMap { commands(of: $0) }.map { "\"\($0.0.name)\"" }
            printer.line("public static let commandNames: [String] = [\(names.joined(separator: ", "))]")
            printer.line()
            printer.line("/// The names of all events.")
            let events = schema.definitions.filter { if case .event = $0.kind { true } else { false } }
            printer.line("public static let events: [String] = [\(events.map { "\"\($0.name)\"" }.joined(separator: ", "))]")
            printer.line()
            printer.line("/// What `query-qmp-schema` answers.")
            printer.line("public static let introspection: JSONValue = {")
            printer.line("    do throws(JSONError) {")
            printer.line("        return try JSONValue(parsing: introspectionText)")
            printer.line("    } catch {")
            printer.line("        preconditionFailure(\"the generated introspection is JSON\")")
            printer.line("    }")
            printer.line("}()")
            printer.line()
            printer.line("private static let introspectionText = #\"\"\"")
            for line in introspection { printer.line("    " + line) }
            printer.line("    \"\"\"#")
        }
    }

    /// One entry. Its closure is written in the runtime, since hundreds of closures here cost much time to compile.
    private func emitEntry(_ definition: Definition, _ details: CommandDetails, into printer: inout SwiftPrinter) {
        var parts = ["\"\(definition.name)\""]
        let options = [
            details.allowsOutOfBand ? ".outOfBand" : nil, details.allowsPreconfig ? ".preconfig" : nil,
            details.isCoroutine ? ".coroutine" : nil, details.answersSuccess ? nil : ".silent", details.isTyped ? nil : ".untyped",
        ].compactMap { $0 }
        if !options.isEmpty { parts.append("[\(options.joined(separator: ", "))]") }
        if !definition.features.isEmpty {
            parts.append("features: [\(definition.features.map { "\"\($0.name)\"" }.joined(separator: ", "))]")
        }
        let shape =
            switch (argumentsType(definition, details) != nil, details.returns != nil) {
            case _ where !details.isTyped: "raw"
            case (true, true): "mapping"
            case (true, false): "taking"
            case (false, true): "giving"
            case (false, false): "doing"
            }
        parts.append("\(shape): handlers.\(SwiftNames.member(definition.name))")
        printer.line("entries.append(CommandEntry(\(parts.joined(separator: ", "))))")
    }
}
