import Foundation
import IOCore
import QAPIRuntime
import QMPMonitor
import StorageSchema
import StrataBase
import Testing

/// A server on a unix socket with a context of its own.
private final class ServerFixture: Sendable {
    let context: IOContext
    let server: QMPServer
    let path: String

    init() async throws {
        context = try IOContext.startThread(name: "monitor")
        let path = NSTemporaryDirectory() + "qmp-\(UUID().uuidString.prefix(8)).sock"
        self.path = path
        let server = QMPServer(commands: Array(TestHandlers().table.values), context: context)
        self.server = server
        let socket = try ListeningSocket(.unix(path: path))
        try await run { try server.listen(on: socket) }
    }

    /// Runs `body` on the context's thread.
    func run(_ body: @escaping @Sendable () async throws -> Void) async throws {
        try await Task(executorPreference: context) { try await body() }.value
    }

    func stop() async throws {
        let server = server
        try await run { await server.stop() }
        context.stop()
        context.join()
    }
}

/// A blocking client.
private final class Client {
    private let socket: ConnectedSocket
    private var pending: [UInt8] = []

    init(_ path: String) throws { socket = try ConnectedSocket(connectingTo: .unix(path: path)) }

    func send(_ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            var descriptor = pollfd(fd: socket.descriptor, events: Int16(POLLOUT), revents: 0)
            guard poll(&descriptor, 1, 5000) > 0, case .bytes(let count) = socket.send(Array(bytes)) else {
                Issue.record("the server does not take what the client sends")
                return
            }
            bytes = bytes.dropFirst(count)
        }
    }

    /// The next line, nil at the end of the stream or when nothing comes for five seconds.
    func line() -> String? {
        while true {
            if let end = pending.firstIndex(of: 0x0a) {
                let line = String(decoding: pending[..<end], as: UTF8.self)
                pending.removeFirst(end + 1)
                return line.hasSuffix("\r") ? String(line.dropLast()) : line
            }
            var descriptor = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&descriptor, 1, 5000) > 0 else { return nil }
            let (outcome, bytes) = socket.receive(atMost: 4096)
            guard case .bytes = outcome else { return nil }
            pending += bytes
        }
    }
}

@Suite("QMP server", .serialized)
struct QMPServerTests {
    @Test("several clients talk at once, and events reach those that have negotiated")
    func severalClients() async throws {
        let fixture = try await ServerFixture()
        let first = try Client(fixture.path)
        let second = try Client(fixture.path)
        let third = try Client(fixture.path)
        for client in [first, second, third] { #expect(client.line()?.hasPrefix(#"{"QMP": "#) == true) }
        first.send(#"{"execute":"qmp_capabilities"}"#)
        second.send(#"{"execute":"qmp_capabilities"}{"execute":"query-block-exports","id":2}"#)
        #expect(first.line() == #"{"return": {}}"#)
        #expect(second.line() == #"{"return": {}}"#)
        #expect(second.line()?.hasSuffix(#""id": 2}"#) == true)
        fixture.server.send(BlockExportDeletedEvent(id: "e"))
        for client in [first, second] {
            let event = try JSONValue(parsing: try #require(client.line()))
            #expect(event["event"] == "BLOCK_EXPORT_DELETED")
            #expect(event["data"] == ["id": "e"])
            #expect(event["timestamp"]?["seconds"]?.integer ?? 0 > 1_700_000_000)
            #expect((0..<1_000_000).contains(event["timestamp"]?["microseconds"]?.integer ?? -1))
        }
        third.send(#"{"execute":"qmp_capabilities"}"#)
        #expect(third.line() == #"{"return": {}}"#)
        try await fixture.stop()
        #expect(first.line() == nil)
    }

    @Test("a client that sends far ahead gets every answer in order")
    func manyCommandsAhead() async throws {
        let fixture = try await ServerFixture()
        let client = try Client(fixture.path)
        client.send(#"{"execute":"qmp_capabilities"}"#)
        let count = 2000
        for number in 0..<count { client.send(#"{"execute":"query-version","id":\#(number)}"#) }
        _ = client.line()
        _ = client.line()
        for number in 0..<count {
            guard client.line()?.hasSuffix(#""id": \#(number)}"#) == true else {
                Issue.record("answer \(number) is missing")
                break
            }
        }
        try await fixture.stop()
    }

    @Test("a client that does not read holds up itself only, and gets everything when it reads")
    func slowReader() async throws {
        let fixture = try await ServerFixture()
        let slow = try Client(fixture.path)
        let count = 200
        slow.send(#"{"execute":"qmp_capabilities"}"#)
        // At once: the kernel has room for few small pieces.
        slow.send((0..<count).map { #"{"execute":"query-qmp-schema","id":\#($0)}"# }.joined())
        let other = try Client(fixture.path)
        other.send(#"{"execute":"qmp_capabilities","id":"other"}"#)
        #expect(other.line()?.hasPrefix(#"{"QMP""#) == true)
        #expect(other.line() == #"{"return": {}, "id": "other"}"#)
        _ = slow.line()
        _ = slow.line()
        for number in 0..<count {
            guard slow.line()?.hasSuffix(#""id": \#(number)}"#) == true else {
                Issue.record("answer \(number) is missing")
                break
            }
        }
        try await fixture.stop()
    }

    @Test("clients that leave in the middle of anything disturb nobody")
    func leavingClients() async throws {
        let fixture = try await ServerFixture()
        for text in [
            "", "{", #"{"execute":"qmp_capabilities"}"#,
            #"{"execute":"qmp_capabilities"}"# + String(repeating: #"{"execute":"query-qmp-schema"}"#, count: 50),
        ] {
            for _ in 0..<10 {
                let client = try Client(fixture.path)
                client.send(text)
            }
        }
        fixture.server.send(BlockExportDeletedEvent(id: "e"))
        let client = try Client(fixture.path)
        client.send(#"{"execute":"qmp_capabilities","id":1}"#)
        _ = client.line()
        #expect(client.line() == #"{"return": {}, "id": 1}"#)
        try await fixture.stop()
    }

    @Test("a pair of pipes is served like a socket, and what was sent before the end is answered")
    func pipes() async throws {
        let fixture = try await ServerFixture()
        let (input, output) = (Pipe(), Pipe())
        let serverInput = ConnectedSocket(adopting: dup(input.fileHandleForReading.fileDescriptor))
        let serverOutput = ConnectedSocket(adopting: dup(output.fileHandleForWriting.fileDescriptor))
        let server = fixture.server
        try await fixture.run { try server.serve(input: serverInput, output: serverOutput, pretty: true) }
        try input.fileHandleForWriting.write(contentsOf: Data(#"{"execute":"qmp_capabilities"}{"execute":"query-block-exports"}"#.utf8))
        try input.fileHandleForWriting.close()
        var text = ""
        while text.components(separatedBy: "\"return\"").count < 3, let chunk = try output.fileHandleForReading.read(upToCount: 1),
            !chunk.isEmpty
        {
            text += String(decoding: chunk, as: UTF8.self)
        }
        #expect(text.hasPrefix("{\r\n") || text.hasPrefix("{\n    \"QMP\": {"))
        try await fixture.stop()
        let rest = String(decoding: output.fileHandleForReading.availableData, as: UTF8.self)
        #expect(rest.hasSuffix("}\r\n"))
    }
}
