import Foundation
import StrataTesting
import Testing

@Suite("blkverify")
struct BlkverifyTests {
    private static func node(_ raw: JSON, _ test: JSON) -> JSON { ["driver": "blkverify", "node-name": "top", "raw": raw, "test": test] }
    private static let raw: JSON = ["driver": "file", "filename": "raw"], test: JSON = ["driver": "file", "filename": "test"]

    @Test("what agrees is shown, and writes go to both")
    func agreement() throws {
        let session = TwinSession(
            files: ["raw": [UInt8](repeating: 1, count: 65536), "test": [UInt8](repeating: 1, count: 65536)], nodes: [Self.node(Self.raw, Self.test)],
            io: ["read -P 1 0 64k", "write -P 2 1000 5000", "read -P 2 1000 5000", "flush"], inspected: ["raw", "test"])
        try session.expectSame()
    }

    /// QEMU 10.0.2 stops at an assertion here.
    @Test("zeroes go to both, too")
    func zeroes() throws {
        let session = TwinSession(
            files: ["raw": [UInt8](repeating: 1, count: 65536), "test": [UInt8](repeating: 1, count: 65536)], nodes: [Self.node(Self.raw, Self.test)],
            io: ["write -z 0 4k", "read -P 0 0 4k", "read -P 1 4k 4k"], inspected: ["raw", "test"])
        let lines = try session.run(.ours).lines
        #expect(lines.suffix(2) == ["raw: 4096*0 61440*1", "test: 4096*0 61440*1"])
        #expect(lines.allSatisfy { !$0.contains("failed") })
    }

    /// How a daemon ends that is asked to do one thing.
    private static func ending(_ maker: StorageDaemon.Maker, _ node: JSON, _ command: String) throws -> String {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 1, count: 65536), to: "raw")
        var doubtful = [UInt8](repeating: 1, count: 65536)
        doubtful[5000] = 7
        try folder.write(doubtful, to: "test")
        let daemon = try StorageDaemon(maker, in: folder)
        if let refusal = try daemon.add(node) { throw HarnessError(refusal) }
        try daemon.export("top")
        _ = try daemon.io(command)
        let finished = try daemon.process.wait(atMost: .seconds(30))
        return "\(finished.ending) \(finished.errorText.split(separator: "\n").filter { $0.hasPrefix("blkverify") || $0.hasPrefix("quorum") })"
    }

    @Test("a difference ends the program in QEMU's words", arguments: ["read 0 64k", "read 4096 4096", "read 5000 1"])
    func difference(command: String) throws {
        let node = Self.node(Self.raw, Self.test)
        let ours = try Self.ending(.ours, node, command)
        #expect(ours == (try Self.ending(.qemu, node, command)))
        #expect(ours.contains("contents mismatch at offset 5000"))
    }

    @Test("a failure of one side only ends the program in QEMU's words", arguments: ["read", "write"])
    func failure(kind: String) throws {
        let broken: JSON = ["driver": "blkdebug", "image": Self.raw, "inject-error": [["event": "none", "iotype": .string(kind), "errno": 28]]]
        for node in [Self.node(broken, Self.test), Self.node(Self.test, broken)] {
            let ours = try Self.ending(.ours, node, "\(kind) 0 512")
            #expect(ours == (try Self.ending(.qemu, node, "\(kind) 0 512")))
            #expect(ours.contains("return value mismatch"))
        }
    }

    @Test("a quorum with blkverify=on ends the program in QEMU's words")
    func quorum() throws {
        let node: JSON = ["driver": "quorum", "node-name": "top", "vote-threshold": 2, "blkverify": true, "children": [Self.raw, Self.test]]
        let ours = try Self.ending(.ours, node, "read 4096 4096")
        #expect(ours == (try Self.ending(.qemu, node, "read 4096 4096")))
    }
}
