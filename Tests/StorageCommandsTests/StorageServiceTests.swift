import Foundation
import QAPIRuntime
import StorageCommands
import StorageSchema
import Testing

@Suite("storage service")
struct StorageServiceTests {
    private static func start(_ fixture: ServiceFixture, _ scratch: Scratch) async {
        let address: JSONValue = ["type": "unix", "data": ["path": .string(scratch.file("nbd.sock"))]]
        #expect(await fixture.failure("nbd-server-start", ["addr": address]) == nil)
    }

    @Test("a node that somebody uses is not removed; the refusal is QEMU's, and the graph query tells who uses it")
    func nodeInUse() async throws {
        let scratch = try Scratch()
        let fixture = try ServiceFixture()
        let path = JSONValue.string(scratch.disk("disk.img", byteCount: 1 << 20))
        await Self.start(fixture, scratch)
        #expect(await fixture.failure("blockdev-add", ["driver": "file", "node-name": "file", "filename": path]) == nil)
        #expect(await fixture.failure("blockdev-add", ["driver": "raw", "node-name": "disk", "file": "file"]) == nil)
        #expect(await fixture.failure("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk", "writable": true]) == nil)
        #expect(await fixture.failure("blockdev-del", ["node-name": "file"])
            == "Block device file is in use. It is held by node 'disk' (uses node 'file' as 'file' child): delete 'disk' first, or take 'file' from it.")
        #expect(await fixture.failure("blockdev-del", ["node-name": "disk"])?.hasPrefix("Node disk is in use. It is held by block export ") == true)
        let edges = try #require(await fixture.execute("x-debug-query-block-graph")["return"]?["edges"])
        #expect(edges.array?.contains { $0["name"] == "file" && $0["perm"]?.array?.contains("write") == true } == true, "\(edges)")
        #expect(await fixture.failure("block-export-del", ["id": "e"]) == nil)
        #expect(await fixture.event("BLOCK_EXPORT_DELETED") == ["id": "e"])
        #expect(await fixture.failure("blockdev-del", ["node-name": "disk"]) == nil)
        #expect(await fixture.failure("blockdev-del", ["node-name": "file"]) == nil)
        try await fixture.stop()
    }

    @Test("an export on an I/O thread serves its clients, and the thread may lose its name meanwhile")
    func ioThread() async throws {
        let scratch = try Scratch()
        let fixture = try ServiceFixture()
        let path = JSONValue.string(scratch.disk("disk.img", byteCount: 1 << 20))
        await Self.start(fixture, scratch)
        #expect(await fixture.failure("object-add", ["qom-type": "iothread", "id": "t"]) == nil)
        #expect(await fixture.failure("blockdev-add", ["driver": "file", "node-name": "disk", "filename": path]) == nil)
        #expect(
            await fixture.failure("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk", "writable": true, "iothread": "t"]) == nil)
        #expect(await fixture.failure("object-del", ["id": "t"]) == nil)
        let uri = "nbd+unix:///disk?socket=" + scratch.file("nbd.sock")
        try run("qemu-io", ["-f", "raw", "-c", "write -P 0x5a 4k 8k", "-c", "flush", "-c", "read -P 0x5a 4k 8k", uri])
        #expect(await fixture.failure("nbd-server-stop") == nil)
        #expect(await fixture.event("BLOCK_EXPORT_DELETED") == ["id": "e"])
        #expect(await fixture.failure("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk", "iothread": "t"]) == #"iothread "t" not found"#)
        try await fixture.stop()
        let bytes = try Data(contentsOf: URL(fileURLWithPath: scratch.file("disk.img")))
        #expect(bytes[4096..<12288].allSatisfy { $0 == 0x5a } && bytes[0..<4096].allSatisfy { $0 == 0 })
        #expect(!FileManager.default.fileExists(atPath: scratch.file("nbd.sock")))
    }

    @Test("shutting down removes the exports, closes the nodes and answers whoever waits for the end")
    func shutDown() async throws {
        let scratch = try Scratch()
        let fixture = try ServiceFixture()
        await Self.start(fixture, scratch)
        #expect(await fixture.failure("blockdev-add", ["driver": "null-co", "node-name": "disk"]) == nil)
        #expect(await fixture.failure("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk"]) == nil)
        async let end: Void = fixture.service.waitForQuit()
        #expect(await fixture.execute("quit") == ["return": [:]])
        await end
        try await fixture.stop()
        #expect(await fixture.event("BLOCK_EXPORT_DELETED") == ["id": "e"])
        #expect(!FileManager.default.fileExists(atPath: scratch.file("nbd.sock")))
    }

    @Test(
        "what is not supported is refused by name rather than ignored",
        arguments: [
            ("block_resize", ["node-name": "disk", "size": -1], "size"),
            ("block_resize", ["node-name": "disk", "size": 512], "does not support resize"),
        ] as [(String, JSONValue, String)])
    func unsupported(command: String, arguments: JSONValue, name: String) async throws {
        let scratch = try Scratch()
        let fixture = try ServiceFixture()
        await Self.start(fixture, scratch)
        #expect(await fixture.failure("blockdev-add", ["driver": "null-co", "node-name": "disk"]) == nil)
        let message = try #require(await fixture.failure(command, arguments))
        #expect(message.contains(name))
        try await fixture.stop()
    }

    @Test("a file grows and shrinks by block_resize, and not while an export promises its size")
    func resize() async throws {
        let scratch = try Scratch()
        let fixture = try ServiceFixture()
        let path = scratch.disk("disk.img", byteCount: 1 << 20)
        await Self.start(fixture, scratch)
        #expect(await fixture.failure("blockdev-add", ["driver": "file", "node-name": "disk", "filename": .string(path)]) == nil)
        #expect(await fixture.failure("block_resize", ["node-name": "disk", "size": 2_097_152]) == nil)
        #expect(try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int == 2 << 20)
        #expect(await fixture.failure("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk"]) == nil)
        #expect(await fixture.failure("block_resize", ["node-name": "disk", "size": 4096]) != nil)
        try await fixture.stop()
        #expect(try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int == 2 << 20)
    }
}
