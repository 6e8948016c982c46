import Glibc
import IOCore
import QAPIRuntime
import StrataBase
import ToolSupport

/// One run of the tool.
struct QMPJob: Sendable {
    let address: HostAddress
    let commands: [CommandWords]
    let printsEvents: Bool
    let awaitedEvent: String?
    let isCompact: Bool
    let keepsGoing: Bool
    /// How the server's jobs are shown after the commands; nil does not wait for them.
    let progress: ProgressReporter.Style?
    let name: String

    func run() async throws(ToolFailure) -> Int32 {
        guard let context = IOContext.current else { throw ToolFailure("The tool runs outside of an I/O context") }
        let client = try await QMPClient(connectingTo: address, context: context)
        if printsEvents { client.onEvent = { StandardStreams.print($0.text() + "\n") } }
        defer { client.close() }

        var status: Int32 = 0
        if !commands.isEmpty {
            for command in commands {
                if try await perform(command, client) { continue }
                status = 1
                if !keepsGoing { return status }
            }
        } else if progress != nil {
            // Only looking.
        } else if Terminal.isInteractive, awaitedEvent == nil, !printsEvents {
            return try await QMPShell(client, context: context, name: name, isCompact: isCompact).run()
        } else if awaitedEvent == nil || isatty(STDIN_FILENO) == 0, !(printsEvents && isatty(STDIN_FILENO) == 1) {
            status = try await performLines(client, context)
            if status != 0, !keepsGoing { return status }
        }
        if let progress, try await !JobFollower(client: client, context: context, style: progress).run() { status = 1 }
        if let awaitedEvent {
            while !client.eventNames.contains(awaitedEvent) {
                guard try await client.waitForEvent() else {
                    throw ToolFailure("The server closed the connection before event \(awaitedEvent) came")
                }
            }
        } else if printsEvents, commands.isEmpty {
            while try await client.waitForEvent() {}
        }
        return status
    }

    /// - Returns: whether the command succeeded.
    private func perform(_ command: CommandWords, _ client: QMPClient) async throws(ToolFailure) -> Bool {
        let arguments: JSONObject
        switch command.arguments {
        case .json(let object): arguments = object
        case .words(let words):
            var value = try CommandWords.dotted(words)
            // Only arguments need types, and only a known command has any.
            if !words.isEmpty, let schema = try await client.introspection() { value = try schema.typedArguments(value, of: command.name) }
            arguments = value.object ?? JSONObject()
        }
        return report(try await client.execute(command.name, arguments))
    }

    private func report(_ answer: Result<JSONValue, QMPError>) -> Bool {
        switch answer {
        case .success(let value):
            return StandardStreams.print(value.text(pretty: !isCompact) + "\n")
        case .failure(let error):
            let prefix = error.errorClass == .genericError ? "" : "\(error.errorClass.rawValue): "
            StandardStreams.printError("\(name): \(prefix)\(error.message)\n")
            return false
        }
    }

    /// Runs what standard input says, a command on each line or a whole QMP message. JSON may go on over several lines.
    private func performLines(_ client: QMPClient, _ context: IOContext) async throws(ToolFailure) -> Int32 {
        let isPerson = isatty(STDIN_FILENO) == 1
        let input = InputPump(ConnectedSocket(adopting: dup(STDIN_FILENO)), context: context)
        defer { input.stop() }
        var status: Int32 = 0
        var pending: [UInt8] = []
        var chunks = input.chunks.makeAsyncIterator()
        var hasEnded = false
        var gathered = GatheredLines()
        while !hasEnded {
            if isPerson { StandardStreams.print(gathered.isEmpty ? "qmp> " : "...> ") }
            if let chunk = await chunks.next(isolation: #isolation) { pending += chunk } else { hasEnded = true }
            if hasEnded, !pending.isEmpty { pending.append(UInt8(ascii: "\n")) }
            while let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
                let line = String(decoding: pending[..<end], as: UTF8.self)
                pending.removeFirst(end + 1)
                guard let command = gathered.add(line) else { continue }
                if try await performLine(command, client, forgiving: isPerson || keepsGoing) { continue }
                status = 1
                if !isPerson && !keepsGoing { return status }
            }
            // What is not complete at the end never will be: its error is told.
            if hasEnded, let rest = gathered.take(), try await !performLine(rest, client, forgiving: isPerson || keepsGoing) { status = 1 }
        }
        return isPerson ? 0 : status
    }

    private func performLine(_ line: String, _ client: QMPClient, forgiving: Bool) async throws(ToolFailure) -> Bool {
        do throws(ToolFailure) {
            let text = line.drop { $0 == " " || $0 == "\t" || $0 == "\r" || $0 == "\n" }
            if text.isEmpty || text.hasPrefix("#") { return true }
            if text.hasPrefix("{") {
                let message: JSONValue
                do throws(JSONError) {
                    message = try JSONValue(parsing: text)
                } catch {
                    throw ToolFailure("Not JSON: \(error) at byte \(error.offset)")
                }
                return report(try await client.ask(message))
            }
            return try await perform(try CommandWords(try CommandWords.split(line)), client)
        } catch {
            if !forgiving { throw error }
            StandardStreams.printError(error.text(name: name))
            return false
        }
    }
}
