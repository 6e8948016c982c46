import Glibc
import IOCore
import QAPIRuntime
import StrataBase
package import ToolSupport

/// The tool `qmp`: sends commands to a monitor and prints what it answers.
/// - Returns: the process's exit status: 1 when the server refused a command, 2 when the call or the connection was wrong.
package func runQMPTool(_ invocation: ToolInvocation) -> Int32 {
    let context = CommandContext(invocation)
    return ToolRun.reportingFailures(name: context.name) { () throws(ToolFailure) in
        do throws(ToolFailure) { return try run(invocation, context) } catch {
            // 1 says that the server refused a command; whatever else goes wrong must be told from that.
            var failure = error
            if failure.status == 1 { failure.status = 2 }
            throw failure
        }
    }
}

private func run(_ invocation: ToolInvocation, _ context: CommandContext) throws(ToolFailure) -> Int32 {
    let parsed = try context.parse(invocation.arguments, as: declaration)
    if parsed.contains(.help) { return StandardStreams.print(declaration.helpText(program: context.program)) ? 0 : 1 }
    if parsed.contains(.version) { return StandardStreams.print(VersionText.text(name: context.name)) ? 0 : 1 }
    var operands = parsed.operands
    let socket: String
    if let path = parsed.last(.socket) {
        socket = path
    } else if let path = operands.first {
        socket = path
        operands.removeFirst()
    } else {
        throw context.usageFailure("No socket given")
    }
    let job = QMPJob(
        address: try address(socket), commands: try commands(parsed, operands), printsEvents: parsed.contains(.events),
        awaitedEvent: parsed.last(.wait), isCompact: parsed.contains(.compact), keepsGoing: parsed.contains(.keepGoing),
        progress: try progressStyle(parsed), name: context.name)
    return try ToolRun.onMainContext { () throws(ToolFailure) in try await job.run() }
}

/// How jobs are to be shown; nil when nobody has asked for it.
private func progressStyle(_ parsed: ParsedArguments<Key>) throws(ToolFailure) -> ProgressReporter.Style? {
    guard parsed.contains(.progress) else { return nil }
    switch parsed.last(.progress) {
    case nil, "line"?: return .line
    case "json"?: return .json
    case let value?: throw ToolFailure("--progress expects 'line' or 'json' not '\(value)'")
    }
}

private func commands(_ parsed: ParsedArguments<Key>, _ operands: [String]) throws(ToolFailure) -> [CommandWords] {
    var commands: [CommandWords] = []
    for line in parsed.all(.command) { commands.append(try CommandWords(try CommandWords.split(line))) }
    if !operands.isEmpty { commands.append(try CommandWords(operands)) }
    return commands
}

/// `unix:PATH`, `tcp:HOST:PORT`, a path, or HOST:PORT, which has no slash and ends in a number.
private func address(_ text: String) throws(ToolFailure) -> HostAddress {
    if text.hasPrefix("unix:") { return .unix(path: String(text.dropFirst(5))) }
    let isPort = text.lastIndex(of: ":").map { Int(text[text.index(after: $0)...]) != nil } ?? false
    guard text.hasPrefix("tcp:") || (isPort && !text.contains("/")) else { return .unix(path: text) }
    let rest = text.hasPrefix("tcp:") ? text.dropFirst(4) : text[...]
    guard let colon = rest.lastIndex(of: ":") else { throw ToolFailure("'\(text)' lacks a port") }
    var host = rest[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
    return .tcp(host: String(host), port: String(rest[rest.index(after: colon)...]))
}

private enum Key: OptionKey { case help, version, socket, command, events, wait, compact, keepGoing, progress }

private let declaration = CommandDeclaration<Key>(
    "qmp", summary: "Talk to a QMP monitor",
    usage: ["[options] --socket SOCKET [COMMAND [{JSON} | KEY=VALUE ...]]", "[options] SOCKET [COMMAND [{JSON} | KEY=VALUE ...]]"],
    options: [
        .init(.version, "V", "version", help: "display version info and exit"),
        .init(.socket, "s", "socket", value: "SOCKET", help: "the monitor: PATH or HOST:PORT"),
        .init(.command, "c", "command", value: "LINE", help: "a command with its arguments; may be given again"),
        .init(.events, "e", "events", help: "print events; without commands, until the monitor goes away"),
        .init(.wait, "w", "wait", value: "EVENT", help: "after the commands, wait for this event"),
        .init(.compact, nil, "compact", help: "print answers on one line each"),
        .progress(.progress),
        .init(.keepGoing, "k", "keep-going", help: "go on after a command that failed"),
    ],
    operands: [
        OperandDeclaration("COMMAND", help: "what to run; without one, a shell at a terminal,", "else lines of standard input"),
        OperandDeclaration("KEY=VALUE", help: "an argument; dots lead into objects, as in file.filename=disk.img"),
    ])

/// What the tool's manual page and completions are made from.
package var qmpManual: ToolManual { ToolManual(.qmp, ToolManual.Command(declaration)) }
