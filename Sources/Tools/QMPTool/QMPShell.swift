import Glibc
import IOCore
import QAPIRuntime
import StrataBase
import ToolSupport

/// A conversation between a person at a terminal and a monitor: keys and messages come in whatever order, and the line that is being typed survives
/// what the server says meanwhile.
final class QMPShell {
    private enum Item: Sendable {
        case keys([UInt8])
        case server([UInt8])
        case keyboardEnded
        case signal(Int32)
        case serverEnded
    }

    /// Who asked.
    private enum Question { case person, nodeNames }

    private let client: QMPClient
    private let context: IOContext
    private let name: String
    private let style: ColouredJSON
    private let isCompact: Bool
    private let historyFile = HistoryFile(name: "qmp")
    private var editor: LineEditor
    private var completion: QMPCompletion?
    /// The questions that the server has not answered, oldest first: it answers in order.
    private var questions: [Question] = []
    /// JSON that is not complete yet.
    private var gathered = GatheredLines()
    private var isOver = false

    init(_ client: QMPClient, context: IOContext, name: String, isCompact: Bool) {
        self.client = client
        self.context = context
        self.name = name
        self.isCompact = isCompact
        style = ColouredJSON(isColoured: HostEnvironment["NO_COLOR"] == nil && HostEnvironment["TERM"] != "dumb")
        editor = LineEditor(prompt: "qmp> ", history: historyFile?.read() ?? LineHistory())
    }

    /// Runs until the person leaves or the server goes away.
    /// - Throws: a failure when the server went first.
    func run() async throws(ToolFailure) -> Int32 {
        completion = try await client.introspection().map { QMPCompletion(schema: $0) }
        let (items, continuation) = AsyncStream.makeStream(of: Item.self)
        let messages = client.stream
        context.spawn {
            for await chunk in messages { continuation.yield(.server(chunk)) }
            continuation.yield(.serverEnded)
        }
        let keyboard = InputPump(ConnectedSocket(adopting: dup(STDIN_FILENO)), context: context)
        let keys = keyboard.chunks
        context.spawn {
            for await chunk in keys { continuation.yield(.keys(chunk)) }
            continuation.yield(.keyboardEnded)
        }
        try watchSignals { continuation.yield(.signal($0)) }
        Terminal.enterRawMode()
        write("\u{1b}[?2004h")
        defer {
            keyboard.stop()
            write("\u{1b}[?2004l")
            Terminal.restore()
        }
        await askForNodes()
        redraw()
        var iterator = items.makeAsyncIterator()
        while !isOver, let item = await iterator.next(isolation: #isolation) {
            switch item {
            case .keys(let bytes): await type(bytes)
            case .server(let bytes): await take(bytes)
            case .keyboardEnded: leave()
            case .signal(SIGWINCH): redraw()
            case .signal(SIGCONT):
                // Whoever has run meanwhile may have left the terminal in any state.
                Terminal.enterRawMode()
                write("\u{1b}[?2004h")
                redraw()
            case .signal(let number):
                leave()
                return 128 + number
            case .serverEnded:
                saveHistory()
                write("\r\u{1b}[K")
                throw ToolFailure("The server closed the connection")
            }
        }
        return 0
    }

    /// - Throws: when the kernel refuses it; a shell that could leave the terminal unusable does not begin.
    private func watchSignals(_ handler: @escaping @Sendable (Int32) -> Void) throws(ToolFailure) {
        do throws(BlockError) {
            try ProcessSignals.watchTermination(on: context, handler)
            try ProcessSignals.watchTerminal(on: context, handler)
        } catch {
            throw ToolFailure(nil, error)
        }
    }

    private func write(_ text: String) { StandardStreams.print(text) }

    /// While an answer to the person is awaited no prompt is shown, but what is typed is.
    private func redraw() {
        editor.prompt = questions.contains(.person) ? "... " : gathered.isEmpty ? "qmp> " : "...> "
        write(editor.rendering(columns: Terminal.columns))
    }

    /// Prints above the line that is being typed.
    private func say(_ text: String) {
        write("\r\u{1b}[K\(text)\n")
        if !isOver { redraw() }
    }

    private func leave() {
        isOver = true
        saveHistory()
        write("\n")
    }

    private func saveHistory() {
        do throws(BlockError) { try historyFile?.write(editor.history) } catch { write("\r\u{1b}[K\(name): \(error)\n") }
    }

    /// One key after the other, because an effect is about the line as it is then; drawn once.
    private func type(_ bytes: [UInt8]) async {
        var isChanged = false
        for byte in bytes {
            for effect in editor.feed([byte]) where !isOver {
                isChanged = effect == .changed
                if !isChanged { await act(on: effect) }
            }
        }
        if isChanged, !isOver { redraw() }
    }

    private func act(on effect: LineEditor.Effect) async {
        switch effect {
        case .changed: redraw()
        case .bell, .quit: write("\u{7}" + editor.rendering(columns: Terminal.columns))
        case .clearScreen:
            write("\u{1b}[H\u{1b}[2J")
            redraw()
        case .interrupt:
            let isWaiting = questions.contains(.person)
            write("\n")
            editor.clear()
            _ = gathered.take()
            if isWaiting { say("The server has not answered yet; Ctrl-D leaves.") } else { redraw() }
        case .end: leave()
        case .complete: complete()
        case .suspend:
            write("\n\u{1b}[?2004l")
            Terminal.suspend()
            write("\u{1b}[?2004h")
            redraw()
        case .submit(let line):
            write("\n")
            let lines = gathered.lines + [line]
            if let command = gathered.add(line) {
                editor.joinHistory(lines)
                await perform(command)
            }
            if !isOver { redraw() }
        }
    }

    // MARK: Completing

    private func complete() {
        guard let answer = completion?.complete(editor.head), !answer.candidates.isEmpty else { return write("\u{7}") }
        let common = answer.common
        editor.insert(common.dropFirst(answer.replaced))
        if answer.candidates.count == 1 {
            if common.last != "=", common.last != "." { editor.insert(" ") }
            return redraw()
        }
        if common.count > answer.replaced { return redraw() }
        say(columns(answer.candidates))
    }

    private func columns(_ candidates: [String]) -> String {
        let width = (candidates.map(\.count).max() ?? 0) + 2
        let perLine = max(1, Terminal.columns / width)
        var text = ""
        for (index, candidate) in candidates.enumerated() {
            let isLast = index % perLine == perLine - 1 || index == candidates.count - 1
            text += isLast ? candidate + (index == candidates.count - 1 ? "" : "\n") : candidate + String(repeating: " ", count: width - candidate.count)
        }
        return text
    }

    // MARK: Commands and answers

    private func perform(_ line: String) async {
        do throws(ToolFailure) {
            let text = line.drop { $0 == " " || $0 == "\t" || $0 == "\n" }
            if text.isEmpty || text.hasPrefix("#") { return }
            if text.hasPrefix("{") {
                let message: JSONValue
                do throws(JSONError) { message = try JSONValue(parsing: text) } catch { throw ToolFailure("Not JSON: \(error) at byte \(error.offset)") }
                return try await ask(message, .person)
            }
            let words = try CommandWords.split(line)
            switch words.first {
            case "quit-shell": return leave()
            case "help": return help(words.dropFirst().first)
            default: break
            }
            let command = try CommandWords(words)
            let arguments: JSONObject
            switch command.arguments {
            case .json(let object): arguments = object
            case .words(let words):
                let value = try CommandWords.dotted(words)
                arguments = try completion?.schema.typedArguments(value, of: command.name).object ?? value.object ?? JSONObject()
            }
            var request: JSONValue = ["execute": .string(command.name)]
            if !arguments.isEmpty { request = ["execute": .string(command.name), "arguments": .object(arguments)] }
            try await ask(request, .person)
        } catch {
            say(style.error(error.message))
        }
    }

    private func help(_ command: String?) {
        guard let schema = completion?.schema else { return say("The server does not describe its commands.") }
        guard let command else {
            return say("COMMAND [KEY=VALUE ... | {JSON}], a whole message in JSON, help COMMAND, or quit-shell (Ctrl-D). Commands:\n" + columns(schema.commandNames))
        }
        guard let text = schema.help(on: command) else { return say(style.error("The server has no command '\(command)'")) }
        say(text.hasSuffix("\n") ? String(text.dropLast()) : text)
    }

    private func ask(_ request: JSONValue, _ question: Question) async throws(ToolFailure) {
        questions.append(question)
        try await client.send(request)
    }

    /// Names of nodes are for completing only: a server that has no such command is none the worse.
    private func askForNodes() async {
        guard completion?.schema.commandNames.contains("query-named-block-nodes") == true else { return }
        try? await ask(["execute": "query-named-block-nodes", "arguments": ["flat": true]], .nodeNames)
    }

    private func take(_ bytes: [UInt8]) async {
        for result in client.parse(bytes) {
            guard case .success(let message) = result else {
                say(style.error("The server sent something that is not JSON"))
                continue
            }
            if message["event"] != nil {
                say(style.event(message.text()))
                continue
            }
            let question = questions.isEmpty ? .person : questions.removeFirst()
            if question == .nodeNames {
                completion?.nodeNames = (message["return"]?.array ?? []).compactMap { $0["node-name"]?.string }.sorted()
                continue
            }
            if let value = message["return"] {
                say(isCompact ? value.text() : style.text(value))
            } else {
                let errorClass = message["error"]?["class"]?.string ?? "GenericError"
                let prefix = errorClass == "GenericError" ? "" : errorClass + ": "
                say(style.error(prefix + (message["error"]?["desc"]?.string ?? message.text())))
            }
            // The command may have made or removed nodes.
            if question == .person, !questions.contains(.nodeNames) { await askForNodes() }
        }
    }
}
