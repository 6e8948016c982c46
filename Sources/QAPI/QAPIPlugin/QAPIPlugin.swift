import Foundation
import PackagePlugin

/// Runs qapi-gen over the schema of a target: `schema.json` and what it includes. Every `.json` file of the target is an input, and for
/// each there is one Swift file, named by the rule that `SwiftNames.file(ofModule:)` states; one more holds the table of commands.
@main
struct QAPIPlugin: BuildToolPlugin {
    func createBuildCommands(context: PluginContext, target: any Target) async throws -> [Command] {
        guard let module = target as? any SourceModuleTarget else { return [] }
        let schemas = module.sourceFiles(withSuffix: ".json").map(\.url).sorted { $0.path < $1.path }
        guard let root = schemas.first(where: { $0.lastPathComponent == "schema.json" }) else {
            Diagnostics.error("target \(target.name) has no schema.json")
            return []
        }
        let folder = context.pluginWorkDirectoryURL
        let names = schemas.map { Self.outputName($0.lastPathComponent) } + ["SchemaTable+Generated.swift"]
        return [
            .buildCommand(
                displayName: "Compiling the schema of \(target.name)",
                executable: try context.tool(named: "qapi-gen").url,
                arguments: ["--name", target.name, "--output-dir", folder.path, root.path],
                inputFiles: schemas,
                outputFiles: names.map { folder.appendingPathComponent($0) })
        ]
    }

    private static func outputName(_ file: String) -> String {
        let stem = file.hasSuffix(".json") ? String(file.dropLast(5)) : file
        let words = stem.split { $0 == "-" || $0 == "_" || $0 == "." }
        return words.map { $0.prefix(1).uppercased() + $0.dropFirst() }.joined() + "+Generated.swift"
    }
}
