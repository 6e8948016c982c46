import Foundation
import QAPIRuntime
import Testing

/// Character devices of QEMU's storage daemon and of ours.
@Suite("character devices against qemu-storage-daemon", .serialized)
struct ChardevTests {
    private typealias Command = Conversation.Command

    private static func add(_ id: String, _ type: String, _ data: JSONValue = [:]) -> Command {
        Command("chardev-add", ["id": .string(id), "backend": ["type": .string(type), "data": data]])
    }

    private static func socket(_ id: String, _ address: JSONValue, _ more: [(String, JSONValue)] = []) -> Command {
        var data = JSONObject()
        data["addr"] = address
        for (key, value) in more { data[key] = value }
        return add(id, "socket", .object(data))
    }

    private static func unix(_ path: String, _ more: [(String, JSONValue)] = []) -> JSONValue {
        var data = JSONObject()
        data["path"] = .string(path)
        for (key, value) in more { data[key] = value }
        return ["type": "unix", "data": .object(data)]
    }

    private static func inet(_ host: String, _ port: String) -> JSONValue { ["type": "inet", "data": ["host": .string(host), "port": .string(port)]] }

    @Test("ring buffers answer alike")
    func ringBuffers() async throws {
        func write(_ data: String, _ format: String? = nil, to device: String = "r") -> Command {
            Command("ringbuf-write", .object(Self.object([("device", .string(device)), ("data", .string(data)), ("format", format.map { .string($0) })])))
        }
        func read(_ size: Int, _ format: String? = nil, from device: String = "r") -> Command {
            Command("ringbuf-read", .object(Self.object([("device", .string(device)), ("size", .integer(size)), ("format", format.map { .string($0) })])))
        }
        try await Conversation.compare([
            Self.add("x", "ringbuf", ["size": 100]), Self.add("r", "ringbuf", ["size": 16]), Self.add("r", "ringbuf"), Self.add("n", "null"),
            Self.add("1n", "null"), Self.add("", "null"), Command("chardev-add", ["id": "x"]),
            Command("chardev-add", ["id": "x", "backend": ["type": "null"]]),
            write("hello"), read(3), read(100), read(100), write("0123456789abcdefghij"), read(5), write("ABCDEFGH"), read(100), read(1),
            write("AAECAw==", "base64"), read(100, "base64"), write("!!", "base64"), write("gMOp", "base64"), read(100), write("w6k=", "base64"),
            read(1), read(1), write("abcd"), read(100, "base64"), write("ab"), read(100, "base64"), write("a"), read(100, "base64"),
            read(0), read(-1), read(1, from: "none"), read(1, from: "n"), write("", to: "none"), write("x", to: "n"), write("x", "hex"),
            Command("chardev-send-break", ["id": "r"]), Command("chardev-send-break", ["id": "none"]), Command("chardev-remove", ["id": "none"]),
            Command("chardev-remove", ["id": "n"]), Command("chardev-remove", ["id": "n"]),
            Command("chardev-change", ["id": "r", "backend": ["type": "null", "data": [:]]]),
            Command("chardev-change", ["id": "none", "backend": ["type": "null", "data": [:]]]), read(1),
            Command("qom-get", ["path": "/chardevs/r", "property": "type"]), Command("qom-list", ["path": "/chardevs/r"]),
        ])
    }

    private static func object(_ members: [(String, JSONValue?)]) -> JSONObject {
        var object = JSONObject()
        for (key, value) in members { object[key] = value }
        return object
    }

    @Test("files, pipes and sockets are made, described and refused alike")
    func others() async throws {
        let scratch = try Scratch()
        for name in ["p.in", "p.out", "single"] { mkfifo(scratch.file(name), 0o600) }
        let input = scratch.disk("input", byteCount: 3)
        let commands = [
            Self.add("f", "file", ["out": .string(scratch.file("out"))]), Self.add("f2", "file", ["out": .string(scratch.file("absent/out"))]),
            Self.add("f3", "file", ["out": .string(scratch.file("out")), "append": true, "in": .string(input)]),
            Self.add("f4", "file", ["out": .string(scratch.file("out")), "in": .string(scratch.file("absent"))]), Self.add("f5", "file"),
            Self.add("p", "pipe", ["device": .string(scratch.file("p"))]), Self.add("p2", "pipe", ["device": .string(scratch.file("absent"))]),
            Self.add("p3", "pipe", ["device": .string(scratch.file("single"))]), Self.add("l", "null", ["logfile": .string(scratch.file("log"))]),
            Self.socket("s", Self.unix(scratch.file("s.sock")), [("wait", false)]),
            Self.socket("s3", Self.unix(scratch.file("x.sock")), [("server", false), ("wait", true)]),
            Self.socket("s4", Self.unix(scratch.file("x.sock")), [("server", false), ("reconnect", 1), ("reconnect-ms", 5)]),
            Self.socket("s5", Self.unix(scratch.file("x.sock")), [("reconnect", 1)]),
            Self.socket("s7", Self.unix(scratch.file("x.sock")), [("server", false), ("reconnect-ms", 60000)]),
            Self.socket("s8", Self.unix(scratch.file("y.sock")), [("tls-authz", "a")]),
            Self.socket("s9", Self.unix(scratch.file("y.sock")), [("tls-creds", "absent")]),
            Self.socket("s10", Self.unix(scratch.file("y.sock")), [("server", false), ("websocket", true)]),
            Command("object-add", ["qom-type": "iothread", "id": "thread"]), Self.socket("s11", Self.unix(scratch.file("y.sock")), [("tls-creds", "thread")]),
            Command("object-add", ["qom-type": "tls-creds-anon", "id": "theirs", "endpoint": "server"]),
            Self.socket("s12", Self.unix(scratch.file("y.sock")), [("tls-creds", "theirs")]),
            Self.socket("s13", Self.unix(scratch.file("y.sock")), [("server", false), ("tls-creds", "theirs")]),
            Self.socket("t", Self.unix(scratch.file("t.sock")), [("wait", false), ("telnet", true)]),
            Self.socket("w", Self.unix(scratch.file("w.sock")), [("wait", false), ("websocket", true)]),
            Self.socket("a", Self.unix(scratch.file("abstract"), [("abstract", true)]), [("wait", false)]),
            Self.socket("a2", Self.unix(scratch.file("abstract"), [("abstract", true), ("tight", false)])),
            Self.socket("i", ["type": "inet", "data": ["host": "127.0.0.1", "port": "0", "ipv4": false, "ipv6": false]]),
            Command("query-chardev"), Command("qom-list", ["path": "/chardevs"]), Command("qom-list", ["path": "/chardevs/s"]),
            Command("qom-get", ["path": "/chardevs/s", "property": "addr"]), Command("qom-get", ["path": "/chardevs/s", "property": "connected"]),
            Command("chardev-remove", ["id": "s"]), Command("query-chardev"),
        ]
        let theirs = try Conversation.askQEMU(commands)
        for name in ["s.sock", "t.sock", "w.sock", "out", "log"] { unlink(scratch.file(name)) }
        let ours = try await Conversation.askOurs(commands)
        for (command, (mine, peer)) in zip(commands, zip(ours, theirs)) {
            // Theirs has the device that this conversation goes over.
            let peer = Self.withoutMonitor(peer)
            #expect(Conversation.normal(mine) == Conversation.normal(peer), "\(command.name) \(command.arguments)")
        }
        #expect(!FileManager.default.fileExists(atPath: scratch.file("s.sock")))
    }

    private static func withoutMonitor(_ answer: JSONValue) -> JSONValue {
        guard let list = answer["return"]?.array else { return answer }
        return ["return": .array(list.filter { $0["label"] != "c" && $0["name"] != "c" })]
    }

    @Test("clients of sockets find their server or say whom they looked for")
    func clients() async throws {
        let scratch = try Scratch()
        let fixture = try ServiceFixture()
        func run(_ command: Command) async -> JSONValue { await fixture.execute(command.name, command.arguments) }
        let absent = scratch.file("absent.sock")
        let refusal = await run(Self.socket("c", Self.unix(absent), [("server", false)]))
        #expect(refusal["error"]?["desc"]?.string?.hasPrefix("Failed to add chardev 'c': ") == true && refusal["error"]?["desc"]?.string?.contains(absent) == true)
        let closed = await run(Self.socket("c", Self.inet("127.0.0.1", "1"), [("server", false)]))
        #expect(closed["error"]?["desc"]?.string?.contains("Failed to connect to '127.0.0.1:1': Connection refused") == true)

        // A range of ports: the second server finds the first port taken.
        #expect(await run(Self.socket("i", Self.inet("127.0.0.1", "0"))) == ["return": [:]])
        let port = try #require(await run(Command("qom-get", ["path": "/chardevs/i", "property": "addr"]))["return"]?["port"]?.string)
        let last = try #require(Int(port)) + 20
        let range: JSONValue = ["type": "inet", "data": ["host": "127.0.0.1", "port": .string(port), "to": .integer(last)]]
        #expect(await run(Self.socket("i2", range)) == ["return": [:]])
        let second = try #require(await run(Command("qom-get", ["path": "/chardevs/i2", "property": "addr"]))["return"]?["port"]?.string)
        #expect(second != port && (Int(port)! + 1...last).contains(Int(second)!))
        #expect(await run(Self.socket("j", Self.inet("127.0.0.1", port)))["error"]?["desc"]?.string?.contains("Address already in use") == true)
        #expect(await run(Self.socket("c", Self.inet("127.0.0.1", port), [("server", false)])) == ["return": [:]])
        let devices = try #require(await run(Command("query-chardev"))["return"]?.array)
        let client = try #require(devices.first { $0["label"] == "c" }?["filename"]?.string)
        #expect(client.hasPrefix("tcp:127.0.0.1:") && client.hasSuffix(" <-> 127.0.0.1:\(port)"))
        #expect(await run(Self.socket("v6", ["type": "inet", "data": ["host": "", "port": "0", "ipv6": true]])) == ["return": [:]])
        #expect(await run(Command("qom-get", ["path": "/chardevs/v6", "property": "addr"]))["return"]?["ipv6"] == true)

        #expect(await run(Self.socket("t", Self.unix(absent), [("tn3270", true)]))["error"]?["desc"]?.string?.contains("'tn3270'") == true)
        #expect(await run(Self.socket("t", ["type": "vsock", "data": ["cid": "2", "port": "1"]]))["error"]?["desc"]?.string?.contains("vsock") == true)
        #expect(await run(Self.socket("t", ["type": "fd", "data": ["str": "0"]]))["error"]?["desc"]?.string?.contains("command line") == true)
        #expect(await run(Self.add("t", "udp"))["error"]?["desc"]?.string?.contains("udp") == true)
        #expect(await run(Self.add("r", "ringbuf", ["size": 0]))["error"] != nil, "QEMU crashes here")
        #expect(await run(Self.add("r", "ringbuf", ["size": 1])) == ["return": [:]])

        #expect(await run(Self.add("n", "nosuch"))["error"]?["desc"] == "Parameter 'backend.type' does not accept value 'nosuch'")
        #expect(await run(Self.socket("t", Self.unix(absent), [("reconnect-ms", 1)]))["error"]?["desc"]?.string?.contains("server listen") == true)

        // A change that fails leaves the old device; QEMU's has lost it.
        let change = Command("chardev-change", ["id": "r", "backend": ["type": "socket", "data": ["addr": Self.unix(absent), "server": false]]])
        #expect(await run(change)["error"]?["desc"]?.string?.hasPrefix("Failed to add chardev 'r': ") == true)
        #expect(await run(Command("ringbuf-read", ["device": "r", "size": 1])) == ["return": ""])
        try await fixture.stop()
    }

    @Test("every kind that is listed is one of QEMU's")
    func kinds() async throws {
        let command = Command("query-chardev-backends")
        let theirs = try Set(#require(Conversation.askQEMU([command]).first?["return"]?.array))
        let ours = try Set(#require(try await Conversation.askOurs([command]).first?["return"]?.array))
        #expect(ours.isSubset(of: theirs) && ours.count == 7)
    }
}
