import IOCore
package import ToolSupport

/// The commands, in the order in which `--help` lists them.
private let commands: [any ImgCommand.Type] = [
    AmendCommand.self, BenchCommand.self, BitmapCommand.self, CheckCommand.self, CommitCommand.self, CompareCommand.self, ConvertCommand.self, CreateCommand.self, DDCommand.self, GraphCommand.self, InfoCommand.self,
    MapCommand.self, MeasureCommand.self, RebaseCommand.self, ResizeCommand.self, SnapshotCommand.self,
]

/// The tool `img`: finds the command and hands over the rest of the line.
/// - Returns: the process's exit status.
package func runImgTool(_ invocation: ToolInvocation) -> Int32 {
    // A conversion comes to its end although nobody looks at its progress any more.
    ProcessSignals.ignoreBrokenPipes()
    let context = CommandContext(invocation)
    return ToolRun.reportingFailures(name: context.name) { () throws(ToolFailure) in
        let parsed = try context.parse(invocation.arguments, as: declaration, stopsAtFirstOperand: true)
        for occurrence in parsed.occurrences {
            switch occurrence.key {
            case .help: return StandardStreams.print(helpText(program: context.program)) ? 0 : 1
            case .version: return StandardStreams.print(VersionText.text(name: context.name)) ? 0 : 1
            }
        }
        guard let word = parsed.operands.first else { throw context.usageFailure("Not enough arguments") }
        guard let command = commands.first(where: { $0.name == word }) else {
            throw context.usageFailure("Command not found: \(word)")
        }
        return command.main(invocation, Array(parsed.operands.dropFirst()))
    }
}

private enum Key: OptionKey { case help, version }

private let declaration = CommandDeclaration<Key>(
    "img", summary: "Disk image utility",
    usage: ["[standard options] COMMAND [--help | command options]"],
    options: [
        .init(.version, "V", "version", help: "display version info and exit")
    ])

private func helpText(program: String) -> String {
    var text = declaration.helpText(program: program)
    text += "\nCommands (run \(program) COMMAND --help for each):\n\n"
    for command in commands { text += "  \(command.name) - \(command.summary)\n" }
    text += "\nSupported image formats:\n\n"
    var line = " "
    // Scripts look for a name between blanks.
    for name in DriverNames.all {
        if line.utf8.count + name.utf8.count >= 76 {
            text += line + "\n"
            line = " "
        }
        line += " " + name
    }
    return text + line + "\n"
}

/// What the tool's manual page and completions are made from.
package var imgManual: ToolManual {
    func manual<Command: ImgCommand>(_ command: Command.Type) -> ToolManual.Command { ToolManual.Command(command.declaration) }
    return ToolManual(.img, ToolManual.Command(declaration), subcommands: commands.map { manual($0) })
}
