import IOCore
import StrataBase
package import ToolSupport

/// The tool `io`: carries out small requests on an image, from a script or at a prompt.
/// - Returns: the process's exit status: 1 when a command has failed.
package func runIOTool(_ invocation: ToolInvocation) -> Int32 {
    let context = CommandContext(invocation)
    return ToolRun.reportingFailures(name: context.name) { () throws(ToolFailure) in
        let parsed = try context.parse(invocation.arguments, as: ioDeclaration)
        if parsed.contains(.help) { return StandardStreams.print(ioDeclaration.helpText(program: context.program)) ? 0 : 1 }
        if parsed.contains(.version) { return StandardStreams.print(VersionText.text(name: context.name)) ? 0 : 1 }
        guard parsed.operands.count <= 1 else { throw context.usageFailure("Expecting one image file name at most") }
        ProcessSignals.ignoreBrokenPipes()
        ProcessSignals.ignoreRequestsForAttention()
        return try ToolRun.onMainContext { () async throws(ToolFailure) in try await run(parsed, context) }
    }
}

private func run(_ arguments: ParsedArguments<IOKey>, _ context: CommandContext) async throws(ToolFailure) -> Int32 {
    guard let ioContext = IOContext.current else { preconditionFailure("tools run on an I/O context") }
    let objects = try UserObjects.make(arguments.all(.object))
    let session = IOSession(name: context.name, context: ioContext, objects: objects)
    session.isMisaligned = arguments.contains(.misalign)
    do throws(CommandFailure) {
        let request = try OpenRequest(arguments)
        if let image = arguments.operands.first { try await session.open(image, request) }
    } catch {
        throw error.ending(context)
    }
    var commands = CommandLines(session)
    if arguments.contains(.command) {
        for line in arguments.all(.command) where !session.isOver { await commands.run(line) }
    } else if Terminal.isInteractive {
        await Prompt(session).run(&commands)
    } else {
        await ScriptInput(session).run(&commands)
    }
    do throws(CommandFailure) { try await session.close() } catch { throw error.ending(context) }
    if let signal = session.endingSignal { ProcessEnd.raise(signal) }
    return commands.status
}

extension CommandFailure {
    /// The failure as the end of the tool.
    fileprivate func ending(_ context: CommandContext) -> ToolFailure {
        switch self {
        case .said(let text), .complained(let text), .reported(let text): ToolFailure(text)
        case .usage(let text): context.usageFailure(text ?? "Wrong arguments")
        case .silent: ToolFailure("", status: 1)
        }
    }
}

/// What the tool's manual page and completions are made from.
package var ioManual: ToolManual {
    let commands = IOCommand.all.map { command in
        (term: command.arguments.isEmpty ? command.name : "\(command.name) \(command.arguments)", text: [command.summary] + command.details)
    }
    return ToolManual(.io, ToolManual.Command(ioDeclaration), sections: [ToolManual.Section("Commands of -c and of the prompt", commands)])
}
