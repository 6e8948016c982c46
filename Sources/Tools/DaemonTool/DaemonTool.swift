import IOCore
import StrataBase
package import ToolSupport

/// The tool `daemon`: a stand-in for qemu-storage-daemon.
/// - Returns: the process's exit status.
package func runDaemonTool(_ invocation: ToolInvocation) -> Int32 {
    let context = CommandContext(invocation)
    return ToolRun.reportingFailures(name: context.name) { () throws(ToolFailure) in
        let parsed = try context.parse(invocation.arguments, as: daemonDeclaration)
        if parsed.contains(.help) { return StandardStreams.print(daemonDeclaration.helpText(program: context.program)) ? 0 : 1 }
        if parsed.contains(.version) { return StandardStreams.print(VersionText.text(name: context.name)) ? 0 : 1 }
        if let operand = parsed.operands.first { throw ToolFailure("\(operand): Unexpected argument") }
        let plan = try DaemonPlan(parsed)
        if let help = plan.objectHelp { return StandardStreams.print(help) ? 0 : 1 }
        ProcessSignals.ignoreBrokenPipes()
        // Before any thread exists: a fork takes only the calling thread along.
        let background = try plan.goesToBackground ? becomeDaemon() : nil
        try ToolRun.onMainContext { () async throws(ToolFailure) in
            guard let context = IOContext.current else { preconditionFailure("tools run on an I/O context") }
            try await DaemonRun(plan, on: context, background: background).run()
        }
        return 0
    }
}

private func becomeDaemon() throws(ToolFailure) -> Daemonization {
    do throws(BlockError) { return try Daemonization() } catch { throw ToolFailure("--daemonize", error) }
}

/// What the tool's manual page and completions are made from.
package var daemonManual: ToolManual { ToolManual(.daemon, ToolManual.Command(daemonDeclaration)) }
