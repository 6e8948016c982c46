import IOCore
import QAPIRuntime
import QMPMonitor
import StorageSchema
import StrataBase

/// A few commands that answer without a graph. The whole schema's commands have their handlers elsewhere; a monitor needs only some.
struct TestHandlers {
    var added: @Sendable (BlockdevOptions) -> Void = { _ in }
    /// What `test-wait` waits for.
    var gate = AsyncCondition(false)

    private struct Control: ControlCommands, IntrospectCommands {
        func quit() async throws {}
    }

    var table: [String: CommandEntry] {
        let control = Control()
        let added = added
        let entries = [
            CommandEntry("query-version", giving: { try await control.queryVersion() }),
            CommandEntry("query-commands", giving: { try await control.queryCommands() }),
            CommandEntry("query-qmp-schema", raw: { try await control.queryQmpSchema($0) }),
            CommandEntry("quit", doing: {}),
            CommandEntry("blockdev-add", taking: { (options: BlockdevOptions) in added(options) }),
            CommandEntry("blockdev-del", taking: { (arguments: BlockdevDelArguments) in
                throw BlockError(.notFound, "Failed to find node with node-name='\(arguments.nodeName)'")
            }),
            CommandEntry("block_resize", taking: { (_: BlockResizeArguments) in }),
            CommandEntry("nbd-server-start", taking: { (_: NbdServerOptionsLegacy) in }),
            CommandEntry("block-export-add", taking: { (_: BlockExportOptions) in }),
            CommandEntry("block-export-del", raw: { _ in throw QMPError("gone", class: .deviceNotFound) }),
            CommandEntry("query-block-exports", giving: { [BlockExportInfo(id: "e", type: .nbd, nodeName: "n", shuttingDown: false)] }),
            CommandEntry("test-wait", raw: { [gate] _ in
                await gate.wait { $0 ? () : nil }
                return "waited"
            }),
            CommandEntry("test-deprecated", features: ["deprecated"], raw: { _ in "old" }),
            CommandEntry("x-test-unstable", features: ["unstable"], raw: { _ in "new" }),
            CommandEntry("test-oob", [.outOfBand], raw: { _ in "overtook" }),
        ]
        return Dictionary(uniqueKeysWithValues: entries.map { ($0.name, $0) })
    }
}

/// Feeds a session and collects the lines that it answers.
struct Conversation {
    var session = QMPSession(commands: TestHandlers().table, version: .current)

    mutating func say(_ bytes: some Sequence<UInt8>) async -> [String] {
        var answers: [String] = []
        for step in session.receive(bytes) { if let answer = await Self.perform(step) { answers.append(answer.text()) } }
        while let step = session.next() { if let answer = await Self.perform(step) { answers.append(answer.text()) } }
        return answers
    }

    mutating func say(_ text: String) async -> [String] { await say(Array(text.utf8)) }

    static func perform(_ step: QMPSession.Step) async -> JSONValue? {
        switch step {
        case .reply(let message): message
        case .call(let call): await call.run()
        }
    }

    /// A conversation whose negotiation is over.
    static func negotiated(outOfBand: Bool = false) async -> Conversation {
        var conversation = Conversation()
        _ = await conversation.say(
            outOfBand ? #"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"# : #"{"execute":"qmp_capabilities"}"#)
        return conversation
    }
}
