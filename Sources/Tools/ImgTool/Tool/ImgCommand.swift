import IOCore
import ToolSupport

/// One command of the tool. Each lives in a file of its own and is listed in `ImgTool.swift`.
protocol ImgCommand: SendableMetatype {
    associatedtype Key: OptionKey
    /// The word that selects the command. By itself, so that a search for a command does not make the declarations of the others.
    static var name: String { get }
    static var declaration: CommandDeclaration<Key> { get }

    /// What the command may take.
    static func limits(_ arguments: ParsedArguments<Key>) throws(ToolFailure) -> ResourceLimits

    /// Does the work on the main thread's I/O context.
    /// - Returns: the process's exit status.
    static func run(_ arguments: ParsedArguments<Key>, _ context: CommandContext) async throws(ToolFailure) -> Int32
}

extension ImgCommand {
    static var summary: String { declaration.summary }
    static func limits(_ arguments: ParsedArguments<Key>) throws(ToolFailure) -> ResourceLimits { ResourceLimits() }

    /// Splits the command line, answers `--help`, runs, and prints what went wrong.
    static func main(_ invocation: ToolInvocation, _ arguments: [String]) -> Int32 {
        let context = CommandContext(invocation, command: declaration.name)
        return ToolRun.reportingFailures(name: context.name) { () throws(ToolFailure) in
            let parsed = try context.parse(arguments, as: declaration)
            if parsed.contains(.help) {
                return StandardStreams.print(declaration.helpText(program: context.program)) ? 0 : 1
            }
            if let status = try limits(parsed).enter() { return status }
            // A question ends no command, whether that has an answer or not.
            ProcessSignals.noteProgressQuestions()
            return try ToolRun.onMainContext { () async throws(ToolFailure) in try await run(parsed, context) }
        }
    }
}

extension ImgCommand where Key: LimitsOptionKey {
    static func limits(_ arguments: ParsedArguments<Key>) throws(ToolFailure) -> ResourceLimits { try ResourceLimits(arguments) }
}
