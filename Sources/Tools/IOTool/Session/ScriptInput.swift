import Glibc
import IOCore
import ToolSupport

/// Commands that another program writes to standard input. The prompt is shown all the same: scripts look for it.
struct ScriptInput {
    private let session: IOSession

    init(_ session: IOSession) { self.session = session }

    func run(_ commands: inout CommandLines) async {
        let input = InputPump(ConnectedSocket(adopting: dup(STDIN_FILENO)), context: session.context)
        defer { input.stop() }
        var chunks = input.chunks.makeAsyncIterator()
        var pending: [UInt8] = []
        var hasEnded = false
        while !session.isOver {
            StandardStreams.print("\(session.name)> ")
            while !hasEnded, !pending.contains(UInt8(ascii: "\n")) {
                guard let chunk = await chunks.next(isolation: #isolation) else {
                    hasEnded = true
                    break
                }
                pending += chunk
            }
            if pending.isEmpty { return }
            let end = pending.firstIndex(of: UInt8(ascii: "\n")) ?? pending.count
            // As in C, a line is over at a NUL; the rest of it is nothing.
            let line = String(decoding: pending[..<end].prefix { $0 != 0 }, as: UTF8.self)
            pending.removeSubrange(..<min(end + 1, pending.count))
            await commands.run(line)
        }
    }
}
