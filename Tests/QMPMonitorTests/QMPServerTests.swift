import Foundation
import CharacterDevices
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

    let gate = AsyncCondition(false)

    init(policy: CompatPolicy = CompatPolicy(), clock: MonitorClock? = nil) async throws {
        context = try IOContext.startThread(name: "monitor")
        let path = NSTemporaryDirectory() + "qmp-\(UUID().uuidString.prefix(8)).sock"
        self.path = path
        let server = QMPServer(
            commands: Array(TestHandlers(gate: gate).table.values), policy: policy, context: context, clock: clock)
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

    /// Whether the server has sent anything more by then, or does within the time, in milliseconds.
    func hasInput(within milliseconds: Int32) -> Bool {
        var descriptor = pollfd(fd: socket.descriptor, events: Int16(POLLIN), revents: 0)
        return !pending.isEmpty || poll(&descriptor, 1, milliseconds) > 0
    }
}

private struct UnstableEvent: QAPIEvent {
    static let eventName = "X_TEST"
    static let specialFeatures: SpecialFeatures = .unstable
    init() {}
    init(members: inout ObjectDecoder) throws(QMPError) {}
    func encodeMembers(into object: inout ObjectEncoder) {}
}

private struct BadSectorEvent: QAPIEvent {
    static let eventName = "QUORUM_REPORT_BAD"
    let node: String
    let sector: Int
    init(node: String, sector: Int) {
        self.node = node
        self.sector = sector
    }
    init(members: inout ObjectDecoder) throws(QMPError) {
        node = try members.required("node-name")
        sector = try members.required("sector-num")
    }
    func encodeMembers(into object: inout ObjectEncoder) {
        object.set("node-name", node)
        object.set("sector-num", sector)
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

    @Test("a command that waits holds up those behind it, out-of-band ones overtake it, and a full queue is not read from")
    func blockedCommand() async throws {
        let fixture = try await ServerFixture()
        let client = try Client(fixture.path)
        client.send(#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}"#)
        _ = client.line()
        _ = client.line()
        client.send(#"{"execute":"test-wait","id":"first"}{"execute":"query-block-exports","id":"second"}{"exec-oob":"test-oob","id":"oob"}"#)
        #expect(client.line() == #"{"return": "overtook", "id": "oob"}"#)
        // Behind as many messages as may wait, even an overtaking one stays in the socket until one of them is answered.
        for number in 0..<QMPSession.queueLimit { client.send(#"{"execute":"test-wait","id":\#(number)}"#) }
        try await fixture.run {}
        client.send(#"{"exec-oob":"test-oob","id":"late"}"#)
        #expect(!client.hasInput(within: 50))
        fixture.gate.update { $0 = true }
        var ids: [JSONValue] = []
        while ids.count < QMPSession.queueLimit + 3, let line = client.line() { ids.append(try JSONValue(parsing: line)["id"] ?? nil) }
        #expect(ids.contains("late"))
        #expect(ids.filter { $0 != "late" } == ["first", "second"] + (0..<QMPSession.queueLimit).map { .integer($0) })
        try await fixture.stop()
    }

    @Test("a policy refuses deprecated and unstable commands as if they were not there, and hides events")
    func policy() async throws {
        var policy = CompatPolicy()
        policy.deprecatedInput = .reject
        policy.unstableOutput = .hide
        let fixture = try await ServerFixture(policy: policy)
        let client = try Client(fixture.path)
        client.send(#"{"execute":"qmp_capabilities"}"#)
        _ = client.line()
        _ = client.line()
        client.send(#"{"execute":"test-deprecated"}{"execute":"x-test-unstable"}"#)
        #expect(client.line() == #"{"error": {"class": "CommandNotFound", "desc": "Deprecated command test-deprecated disabled by policy"}}"#)
        #expect(client.line() == #"{"return": "new"}"#)
        fixture.server.send(UnstableEvent())
        fixture.server.send(BlockExportDeletedEvent(id: "e"))
        #expect(client.line()?.contains("BLOCK_EXPORT_DELETED") == true)
        try await fixture.stop()
    }

    @Test("events that come too fast are told once a period, to every client")
    func rateLimit() async throws {
        let clock = ManualClock()
        let fixture = try await ServerFixture(clock: clock.clock)
        let clients = [try Client(fixture.path), try Client(fixture.path)]
        for client in clients {
            client.send(#"{"execute":"qmp_capabilities"}"#)
            _ = client.line()
            _ = client.line()
        }
        func expectNumber(_ number: Int) throws {
            for client in clients { #expect(try JSONValue(parsing: try #require(client.line()))["data"]?["sector-num"] == .integer(number)) }
        }
        for number in 1...5 { fixture.server.send(BadSectorEvent(node: "a", sector: number)) }
        try expectNumber(1)
        for client in clients { #expect(!client.hasInput(within: 20)) }
        clock.advance(by: 999_999_999)
        for client in clients { #expect(!client.hasInput(within: 20)) }
        clock.advance(by: 1)
        try expectNumber(5)
        fixture.server.send(BadSectorEvent(node: "a", sector: 6))
        fixture.server.send(BadSectorEvent(node: "b", sector: 7))
        try expectNumber(7)
        clock.advance(by: 1_000_000_000)
        try expectNumber(6)
        clock.advance(by: 5_000_000_000)
        #expect(clock.pendingCount == 0, "when nothing is held back nobody looks any more")
        fixture.server.send(BadSectorEvent(node: "a", sector: 8))
        try expectNumber(8)
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
        try await fixture.run { server.serve(DescriptorStream(input: serverInput, output: serverOutput, ending: .givesBack), pretty: true) }
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
