import Foundation
import QAPIRuntime
import StrataTesting
import Testing

@Suite("active and inactive nodes")
struct ActivationTests {
    private typealias Command = Conversation.Command

    private static func set(_ active: Bool, _ name: String? = nil) -> Command {
        var arguments = JSONObject()
        arguments["active"] = .bool(active)
        arguments["node-name"] = name.map { .string($0) }
        return Command("blockdev-set-active", .object(arguments))
    }

    private static let query = Command("query-named-block-nodes", ["flat": true])

    /// An error's sentence, or which nodes are active.
    private static func summary(_ answer: JSONValue) -> [String] {
        guard let nodes = answer["return"]?.array else { return [answer["error"]?["desc"]?.string ?? "done"] }
        return nodes.map { "\($0["node-name"]?.string ?? "") \($0["active"]?.text() ?? "")" }.sorted()
    }

    private static func compare(_ commands: [Command]) async throws {
        let theirs = try Conversation.askQEMU(commands)
        try #require(theirs.count == commands.count)
        for (command, (ours, theirs)) in zip(commands, zip(try await Conversation.askOurs(commands), theirs)) {
            let ours = Conversation.withoutAdvice(ours, theirs)
            #expect(summary(ours) == summary(theirs), "\(command.name) \(command.arguments.text())")
        }
    }

    @Test("nodes become inactive and active one by one, in trees and all at once, as QEMU's do")
    func asQEMU() async throws {
        let scratch = try Scratch()
        let (raw, image) = (scratch.disk("raw", byteCount: 1 << 20), scratch.file("image"))
        try run("qemu-img", ["create", "-q", "-f", "qcow2", image, "1M"])
        let file: JSONValue = ["driver": "file", "node-name": "f", "filename": .string(raw), "active": false]
        let address: JSONValue = ["type": "unix", "data": ["path": .string(scratch.file("nbd.sock"))]]
        func export(_ id: String, _ node: String, _ more: JSONValue = [:]) -> Command {
            var arguments = more.object ?? JSONObject()
            arguments["type"] = "nbd"
            arguments["id"] = .string(id)
            arguments["node-name"] = .string(node)
            return Command("block-export-add", .object(arguments))
        }
        func resize(_ name: String) -> Command { Command("block_resize", ["node-name": .string(name), "size": 1_048_576]) }
        func remove(_ id: String) -> Command { Command("block-export-del", ["id": .string(id)]) }
        try await Self.compare([
            Command("nbd-server-start", ["addr": address]), Command("blockdev-add", file), Self.query, resize("f"),
            export("a", "f", ["writable": true, "allow-inactive": true]), Self.query, Self.set(true, "f"), Self.query, Self.set(false, "f"), Self.query,
            remove("a"), export("e", "f"), Self.query, Self.set(false, "f"), Self.query, remove("e"),
            export("w", "f", ["writable": true]), Self.query, Self.set(false, "f"), Self.set(false), Self.query, remove("w"), Self.set(false), Self.query,
            Self.set(false, "nosuch"), Self.set(true), Self.query, Command("blockdev-del", ["node-name": "f"]),
        ])
        try await Self.compare([
            Command("blockdev-add", ["driver": "file", "node-name": "tf", "filename": .string(image), "active": false]),
            Command("blockdev-add", ["driver": "qcow2", "node-name": "t", "file": "tf"]),
            Command("blockdev-add", ["driver": "qcow2", "node-name": "t", "file": "tf", "active": false]), Self.query, Self.set(true, "tf"), Self.query,
            Self.set(true, "t"), Self.query, Self.set(false, "tf"), Self.set(false, "t"), Self.query, Self.set(true, "t"), Self.query, resize("t"),
            Self.set(false), resize("t"), resize("tf"), Self.set(true), Self.query, Command("blockdev-del", ["node-name": "t"]), Self.query,
        ])
        try await Self.compare([
            Command(
                "blockdev-add",
                [
                    "driver": "qcow2", "node-name": "t", "active": false,
                    "file": ["driver": "file", "node-name": "tf", "filename": .string(image)],
                ]), Self.query, Self.set(true, "t"), Self.query, Self.set(false, "t"), Self.query, Command("blockdev-del", ["node-name": "t"]),
        ])
    }

    /// Two daemons in turn, as at the two ends of a migration with shared storage.
    @Test("an inactive image belongs to somebody else: no locks, no requests, and what the other has written is there afterwards")
    func handOver() async throws {
        let scratch = try Scratch()
        let image = scratch.file("image"), socket = scratch.file("nbd.sock")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", image, "1M"])
        let fixture = try ServiceFixture()
        func mustDo(_ name: String, _ arguments: JSONValue = [:]) async { #expect(await fixture.failure(name, arguments) == nil, "\(name)") }
        await mustDo("nbd-server-start", ["addr": ["type": "unix", "data": ["path": .string(socket)]]])
        await mustDo("blockdev-add", ["driver": "qcow2", "node-name": "disk", "file": ["driver": "file", "filename": .string(image)]])
        await mustDo("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk", "writable": true, "allow-inactive": true])
        func client(_ command: String) throws -> String {
            try run("qemu-io", ["-f", "raw", "-c", command, "nbd+unix:///disk?socket=\(socket)"])
        }
        func peer(_ commands: String...) throws -> String { try run("qemu-io", ["-f", "qcow2"] + commands.flatMap { ["-c", $0] } + [image]) }
        _ = try client("write -P 0x11 0 128k")
        #expect(throws: HarnessError.self) { try peer("write -P 0x22 64k 64k") }

        await mustDo("blockdev-set-active", ["active": false])
        #expect(throws: HarnessError.self) { try client("read 0 4k") }
        #expect(throws: HarnessError.self) { try client("write 0 4k") }
        // The peer reads what we have written, and writes: other clusters, and a longer disk.
        #expect(!(try peer("read -P 0x11 0 128k", "write -P 0x22 64k 512k")).contains("verification failed"))
        try run("qemu-img", ["resize", "-q", image, "2M"])

        await mustDo("blockdev-set-active", ["active": true, "node-name": "disk"])
        #expect(throws: HarnessError.self) { try peer("write -P 0x33 0 4k") }
        for command in ["read -P 0x11 0 64k", "read -P 0x22 64k 512k", "write -P 0x44 512k 64k", "read -P 0x44 512k 64k"] {
            #expect(!(try client(command)).contains("verification failed"), "\(command)")
        }
        try await fixture.stop()
        #expect(try run("qemu-img", ["check", image]).contains("No errors"))
        #expect(try run("qemu-img", ["info", image]).contains("2 MiB"))
    }

    @Test("a node that becomes active again lets go of what the page cache knows, unless told otherwise; where that fails a check can tell")
    func cacheIsDropped() async throws {
        let scratch = try Scratch()
        // Pages of a file system in memory never leave the cache; those of one on a disk do, once they are written.
        let inMemory = scratch.disk("disk", byteCount: 1 << 20)
        let onDisk = "/tmp/strata-drop-\(UUID().uuidString)"
        defer { unlink(onDisk) }
        for path in [inMemory, onDisk] { try Data([UInt8](repeating: 7, count: 1 << 20)).write(to: URL(fileURLWithPath: path)) }
        for path in [inMemory, onDisk] {
            for more in [[:], ["x-check-cache-dropped": true], ["drop-cache": false, "x-check-cache-dropped": true]] as [KeyValuePairs<String, JSONValue>] {
                var options = JSONObject()
                options["driver"] = "file"
                options["node-name"] = "f"
                options["filename"] = .string(path)
                options["active"] = false
                for (key, value) in more { options[key] = value }
                let commands = [Command("blockdev-add", .object(options)), Self.set(true, "f"), Self.query]
                try await Self.compare(commands)
                let isCached = path == inMemory && more.count == 1
                #expect(Self.summary(try await Conversation.askOurs(commands)[1]) == [isCached ? "page cache still in use!" : "done"])
            }
        }
    }
}
