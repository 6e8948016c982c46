import IOCore
import NBDClient
import StrataBase
package import ToolSupport

/// The tool `nbd`: a stand-in for qemu-nbd.
/// - Returns: the process's exit status.
package func runNBDTool(_ invocation: ToolInvocation) -> Int32 {
    var context = CommandContext(invocation)
    context.advice = "Try `\(context.program) --help' for more information."
    return ToolRun.reportingFailures(name: context.name) { () throws(ToolFailure) in
        let parsed = try context.parse(invocation.arguments, as: nbdDeclaration)
        if parsed.contains(.help) { return StandardStreams.print(nbdDeclaration.helpText(program: context.program)) ? 0 : 1 }
        if parsed.contains(.version) { return StandardStreams.print(VersionText.text(name: context.name)) ? 0 : 1 }
        let plan = try NBDToolPlan(parsed, context)
        ProcessSignals.ignoreBrokenPipes()
        switch plan.action {
        case .disconnect(let device):
            do throws(BlockError) { try KernelNBDDevice(opening: device, what: "Cannot open").disconnect() } catch { throw ToolFailure(nil, error) }
            StandardStreams.print("\(device) disconnected\n")
            return 0
        case .list:
            let exports = try ToolRun.onMainContext { () async throws(ToolFailure) in try await list(plan) }
            return StandardStreams.print(plan.printsJSON ? ExportList.json(exports) : ExportList.text(exports)) ? 0 : 1
        case .connect(let path):
            let device: KernelNBDDevice
            do throws(BlockError) { device = try KernelNBDDevice(opening: path, what: "Failed to open") } catch { throw ToolFailure(nil, error) }
            try serve(plan, device)
            return 0
        case .serve:
            try serve(plan, nil)
            return 0
        }
    }
}

private func serve(_ plan: NBDToolPlan, _ device: KernelNBDDevice?) throws(ToolFailure) {
    let sockets = try SocketActivation.take(unless: plan)
    // Before any thread exists: a fork takes only the calling thread along. Who connects a device wants to go on with it.
    let background = try plan.goesToBackground || (device != nil && !plan.isVerbose) ? becomeDaemon() : nil
    try ToolRun.onMainContext { () async throws(ToolFailure) in
        guard let context = IOContext.current else { preconditionFailure("tools run on an I/O context") }
        try await ServeRun(plan, sockets, device, on: context, background: background).run()
    }
}

private func becomeDaemon() throws(ToolFailure) -> Daemonization {
    do throws(BlockError) { return try Daemonization() } catch { throw ToolFailure("Failed to fork", error) }
}

/// What the tool's manual page and completions are made from.
package var nbdManual: ToolManual { ToolManual(.nbd, ToolManual.Command(nbdDeclaration)) }
