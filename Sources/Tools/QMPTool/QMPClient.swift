import IOCore
import QAPIRuntime
import StrataBase
import ToolSupport

/// A conversation with a monitor, ours or QEMU's, from the client's side: one command at a time; events are kept as they come.
final class QMPClient {
    private let socket: ConnectedSocket
    private let context: IOContext
    private let pump: InputPump
    private var chunks: AsyncStream<[UInt8]>.Iterator
    private var parser = JSONStreamParser()
    private var received: [Result<JSONValue, JSONError>] = []
    private var schema: IntrospectedSchema?
    /// Called for every event.
    var onEvent: (JSONValue) -> Void = { _ in }
    /// The names of the events that have come since the last call of `takeEvents`.
    private(set) var eventNames: [String] = []

    /// Connects and ends the negotiation. On the context's thread.
    init(connectingTo address: HostAddress, context: IOContext) async throws(ToolFailure) {
        do throws(BlockError) {
            socket = try ConnectedSocket(connectingTo: address)
        } catch {
            throw ToolFailure(nil, error)
        }
        self.context = context
        pump = InputPump(socket, context: context)
        chunks = pump.chunks.makeAsyncIterator()
        let greeting = try await message()
        guard greeting["QMP"] != nil else { throw ToolFailure("'\(address)' does not speak QMP: it said \(greeting)") }
        _ = try await execute("qmp_capabilities", JSONObject())
    }

    func close() {
        pump.stop()
        socket.shutDown()
    }

    /// Runs a command.
    /// - Returns: its result, or the error that the server answered.
    func execute(_ command: String, _ arguments: JSONObject) async throws(ToolFailure) -> Result<JSONValue, QMPError> {
        var request: JSONValue = ["execute": .string(command)]
        if !arguments.isEmpty { request = ["execute": .string(command), "arguments": .object(arguments)] }
        return try await ask(request)
    }

    /// Sends a message as it is and waits for the answer.
    func ask(_ request: JSONValue) async throws(ToolFailure) -> Result<JSONValue, QMPError> {
        try await send(request.bytes() + [UInt8(ascii: "\n")])
        while true {
            let answer = try await message()
            if let value = answer["return"] { return .success(value) }
            guard let error = answer["error"] else { continue }
            let errorClass = QMPErrorClass(rawValue: error["class"]?.string ?? "") ?? .genericError
            return .failure(QMPError(error["desc"]?.string ?? error.text(), class: errorClass))
        }
    }

    /// Waits for one more event, or the end of the conversation.
    /// - Returns: false at the end.
    func waitForEvent() async throws(ToolFailure) -> Bool {
        let count = eventNames.count
        while eventNames.count == count {
            guard try await receive() else { return false }
            try takeEvents()
        }
        return true
    }

    /// What the server says about its commands; asked for once.
    func introspection() async throws(ToolFailure) -> IntrospectedSchema? {
        if let schema { return schema }
        guard case .success(let answer) = try await execute("query-qmp-schema", JSONObject()) else { return nil }
        let schema = IntrospectedSchema(answer)
        self.schema = schema
        return schema
    }

    private func send(_ bytes: [UInt8]) async throws(ToolFailure) {
        var sent = 0
        while sent < bytes.count {
            switch socket.send(bytes, from: sent) {
            case .bytes(let count): sent += count
            // The server reads on only when it has answered; what it has answered waits for us in the socket meanwhile.
            case .wouldBlock: await context.sleep(for: .milliseconds(1))
            case .closed, .failed: throw ToolFailure("The server closed the connection")
            }
        }
    }

    // MARK: For a person's shell, which takes what comes itself

    /// What arrives from now on. Nobody else may wait for messages any more.
    var stream: AsyncStream<[UInt8]> { pump.chunks }

    /// The messages that some bytes complete, and those that came before and were not taken.
    func parse(_ bytes: [UInt8]) -> [Result<JSONValue, JSONError>] {
        var messages = received
        received = []
        parser.feed(bytes, into: &messages)
        return messages
    }

    func send(_ request: JSONValue) async throws(ToolFailure) { try await send(request.bytes() + [UInt8(ascii: "\n")]) }

    /// The next message that is not an event.
    private func message() async throws(ToolFailure) -> JSONValue {
        while true {
            try takeEvents()
            if let first = received.first {
                received.removeFirst()
                if case .success(let value) = first { return value }
            }
            guard try await receive() else { throw ToolFailure("The server closed the connection") }
        }
    }

    private func receive() async throws(ToolFailure) -> Bool {
        guard let bytes = await chunks.next(isolation: #isolation) else { return false }
        parser.feed(bytes, into: &received)
        return true
    }

    /// Takes events out of what has come.
    private func takeEvents() throws(ToolFailure) {
        var others: [Result<JSONValue, JSONError>] = []
        for result in received {
            switch result {
            case .success(let value):
                if let name = value["event"]?.string {
                    eventNames.append(name)
                    onEvent(value)
                } else {
                    others.append(result)
                }
            case .failure(let error): throw ToolFailure("The server sent something that is not JSON: \(error)")
            }
        }
        received = others
    }
}
