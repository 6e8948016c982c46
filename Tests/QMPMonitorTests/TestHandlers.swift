import QAPIRuntime
import QMPMonitor
import StorageSchema
import StrataBase

/// Handlers that answer without a graph.
struct TestHandlers: StorageSchemaCommands {
    var added: @Sendable (BlockdevOptions) -> Void = { _ in }

    func blockdevAdd(_ arguments: BlockdevOptions) async throws { added(arguments) }
    func blockdevDel(_ arguments: BlockdevDelArguments) async throws {
        throw BlockError(.notFound, "Failed to find node with node-name='\(arguments.nodeName)'")
    }
    func blockResize(_ arguments: BlockResizeArguments) async throws {}
    func queryNamedBlockNodes(_ arguments: QueryNamedBlockNodesArguments) async throws -> [BlockDeviceInfo] { [] }
    func nbdServerStart(_ arguments: NbdServerOptionsLegacy) async throws {}
    func nbdServerStop() async throws {}
    func blockExportAdd(_ arguments: BlockExportOptions) async throws {}
    func blockExportDel(_ arguments: BlockExportDelArguments) async throws { throw QMPError("gone", class: .deviceNotFound) }
    func queryBlockExports() async throws -> [BlockExportInfo] {
        [BlockExportInfo(id: "e", type: .nbd, nodeName: "n", shuttingDown: false)]
    }
    func objectAdd(_ arguments: ObjectOptions) async throws {}
    func objectDel(_ arguments: ObjectDelArguments) async throws {}
    func quit() async throws {}

    var table: [String: CommandEntry] {
        var table = Dictionary(uniqueKeysWithValues: StorageSchemaTable.commands(self).map { ($0.name, $0) })
        table["test-oob"] = CommandEntry("test-oob", [.outOfBand]) { _, _ in "overtook" }
        return table
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
