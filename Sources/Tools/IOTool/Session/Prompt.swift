import Glibc
import IOCore
import StrataBase
import ToolSupport

/// Commands from a person at a terminal, with a line to edit and a history that survives.
struct Prompt {
    private let session: IOSession
    private let historyFile = HistoryFile(name: "io")
    private let text: String

    init(_ session: IOSession) {
        self.session = session
        text = "\(session.name)> "
    }

    func run(_ commands: inout CommandLines) async {
        var editor = LineEditor(prompt: text, history: historyFile?.read() ?? LineHistory())
        let keyboard = InputPump(ConnectedSocket(adopting: dup(STDIN_FILENO)), context: session.context)
        Terminal.enterRawMode()
        defer {
            keyboard.stop()
            Terminal.restore()
            do throws(BlockError) { try historyFile?.write(editor.history) } catch { StandardStreams.printError("\(session.name): \(error)\n") }
        }
        draw(editor)
        var chunks = keyboard.chunks.makeAsyncIterator()
        while !session.isOver, let chunk = await chunks.next(isolation: #isolation) {
            // Keys one by one: what an effect is about is the line as it is then.
            for byte in chunk where !session.isOver {
                for effect in editor.feed([byte]) { await act(on: effect, &editor, &commands) }
            }
        }
    }

    private func draw(_ editor: LineEditor) { StandardStreams.print(editor.rendering(columns: Terminal.columns)) }

    private func act(on effect: LineEditor.Effect, _ editor: inout LineEditor, _ commands: inout CommandLines) async {
        switch effect {
        case .changed: draw(editor)
        case .bell: StandardStreams.print("\u{7}")
        case .clearScreen:
            StandardStreams.print("\u{1b}[H\u{1b}[2J")
            draw(editor)
        case .interrupt: end(by: SIGINT)
        case .quit: end(by: SIGQUIT)
        case .end:
            StandardStreams.print("\n")
            session.isOver = true
        case .suspend:
            StandardStreams.print("\n")
            Terminal.suspend()
            draw(editor)
        case .complete: complete(&editor)
        case .submit(let line):
            StandardStreams.print("\n")
            // A command writes as programs do, and may be stopped by Ctrl-C.
            Terminal.restore()
            await commands.run(line)
            guard !session.isOver else { return }
            Terminal.enterRawMode()
            draw(editor)
        }
    }

    /// Leaves so that the process ends by that signal, as whoever has pressed its keys expects, with everything closed.
    private func end(by signal: Int32) {
        StandardStreams.print("\n")
        session.endingSignal = signal
        session.isOver = true
    }

    /// Completes the name of a command.
    private func complete(_ editor: inout LineEditor) {
        let head = editor.head
        let candidates = IOCommand.all.map(\.name).filter { $0.hasPrefix(head) }
        guard !head.contains(" "), let first = candidates.first else { return _ = StandardStreams.print("\u{7}") }
        let common = candidates.dropFirst().reduce(first) { common, name in String(zip(common, name).prefix { $0 == $1 }.map(\.0)) }
        editor.insert(common.dropFirst(head.count))
        if candidates.count == 1 {
            editor.insert(" ")
        } else if common == head {
            StandardStreams.print("\r\u{1b}[K\(candidates.joined(separator: "  "))\n")
        }
        draw(editor)
    }
}
