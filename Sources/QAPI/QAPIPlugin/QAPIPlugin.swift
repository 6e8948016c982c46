import Foundation
import PackagePlugin

/// Runs qapi-gen over the schema of a target: `schema.json` and what it includes. Every `.json` file of the target is an input, and for
/// each there is one Swift file, named by the rule that `SwiftNames.file(ofModule:)` states; one more holds the table of commands.
/// Runs trace-gen over the trace points of a target, a file named `trace-events`.
@main
struct QAPIPlugin: BuildToolPlugin {
    func createBuildCommands(context: PluginContext, target: any Target) async throws -> [Command] {
        guard let module = target as? any SourceModuleTarget else { return [] }
        let commands = try schemaCommands(module, context) + traceCommands(module, context)
        if commands.isEmpty { Diagnostics.error("target \(target.name) has neither a schema.json nor trace-events") }
        return commands
    }

    private func schemaCommands(_ module: any SourceModuleTarget, _ context: PluginContext) throws -> [Command] {
        let schemas = module.sourceFiles(withSuffix: ".json").map(\.url).sorted { $0.path < $1.path }
        guard let root = schemas.first(where: { $0.lastPathComponent == "schema.json" }) else { return [] }
        let folder = context.pluginWorkDirectoryURL
        let names = schemas.map { Self.outputName($0.lastPathComponent) } + ["SchemaTable+Generated.swift"]
        return [
            .buildCommand(
                displayName: "Compiling the schema of \(module.name)",
                executable: try context.tool(named: "qapi-gen").url,
                arguments: ["--name", module.name, "--output-dir", folder.path, root.path],
                inputFiles: schemas,
                outputFiles: names.map { folder.appendingPathComponent($0) })
        ]
    }

    private func traceCommands(_ module: any SourceModuleTarget, _ context: PluginContext) throws -> [Command] {
        guard let events = module.sourceFiles.map(\.url).first(where: { $0.lastPathComponent == "trace-events" }) else { return [] }
        let output = context.pluginWorkDirectoryURL.appendingPathComponent("TraceEvents+Generated.swift")
        return [
            .buildCommand(
                displayName: "Compiling the trace points of \(module.name)",
                executable: try context.tool(named: "trace-gen").url,
                arguments: [module.name, events.path, output.path],
                inputFiles: [events],
                outputFiles: [output])
        ]
    }

    private static func outputName(_ file: String) -> String {
        let stem = file.hasSuffix(".json") ? String(file.dropLast(5)) : file
        let words = stem.split { $0 == "-" || $0 == "_" || $0 == "." }
        return words.map { $0.prefix(1).uppercased() + $0.dropFirst() }.joined() + "+Generated.swift"
    }
}
