import Foundation
import QAPIRuntime
import StorageCommands
import Testing

/// Chains and trees of a size that nobody has in mind, and such that never end.
@Suite("long and endless chains")
struct LongChainTests {
    /// Images that each name the one before as backing file, all made from one that QEMU made.
    private struct Chain {
        let scratch = try! Scratch()
        /// Bytes.
        static let size = 1 << 20

        static func name(_ index: Int) -> String { "layer" + String(100_000 + index) + ".qcow2" }
        func path(_ index: Int) -> String { scratch.file(Self.name(index)) }

        init(length: Int) throws {
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path(0), "\(Self.size)"])
            try run("qemu-io", ["-f", "qcow2", "-c", "write -P 0x5a 64k 4k", path(0)])
            try run(
                "qemu-img",
                ["create", "-q", "-u", "-f", "qcow2", "-o", "cluster_size=512", "-b", Self.name(0), "-F", "qcow2", path(1), "\(Self.size)"])
            let template = try Data(contentsOf: URL(fileURLWithPath: path(1)))
            let place = try #require(template.range(of: Data(Self.name(0).utf8)))
            for index in 2..<length {
                var image = template
                image.replaceSubrange(place, with: Data(Self.name(index - 1).utf8))
                try image.write(to: URL(fileURLWithPath: path(index)))
            }
        }
    }

    private static func qcow2(_ path: String, name: String = "top") -> JSONValue {
        ["driver": "qcow2", "node-name": .string(name), "file": ["driver": "file", "filename": .string(path)]]
    }

    /// Each layer holds a file open.
    private static func allowOpenFiles(_ count: Int) throws {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        limit.rlim_cur = max(limit.rlim_cur, min(rlim_t(count), limit.rlim_max))
        #expect(setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0)
        try #require(limit.rlim_cur >= rlim_t(count), "this machine lets nobody open \(count) files")
    }

    @Test("five thousand overlays are opened, read through, described and closed")
    func fiveThousand() async throws {
        let length = 5000
        try Self.allowOpenFiles(length + 500)
        let chain = try Chain(length: length)
        let fixture = try ServiceFixture()
        #expect(await fixture.failure("blockdev-add", Self.qcow2(chain.path(length - 1))) == nil)
        let nodes = try #require(await fixture.execute("query-named-block-nodes", ["flat": true])["return"]?.array)
        #expect(nodes.count == 2 * length)
        #expect(nodes.first { $0["node-name"] == "top" }?["backing_file"] == .string(chain.path(length - 2)))
        let nested = await fixture.failure("query-named-block-nodes")
        #expect(nested?.contains("flat") == true, "a description inside a description, five thousand times, is refused")
        let graph = await fixture.execute("x-debug-query-block-graph")
        #expect(graph["return"]?["nodes"]?.array?.count == 2 * length)
        // Data of the lowest image, and what no image has, through all the layers.
        let address: JSONValue = ["type": "unix", "data": ["path": .string(chain.scratch.file("nbd.sock"))]]
        #expect(await fixture.failure("nbd-server-start", ["addr": address]) == nil)
        #expect(await fixture.failure("block-export-add", ["type": "nbd", "id": "e", "node-name": "top", "writable": true]) == nil)
        let uri = "nbd+unix:///top?socket=" + chain.scratch.file("nbd.sock")
        try run("qemu-io", ["-f", "raw", "-c", "read -P 0x5a 64k 4k", "-c", "read -P 0 0 4k", "-c", "write -P 7 64k 512", "-c", "read -P 7 64k 512", uri])
        let devices = try #require(await fixture.execute("query-blockstats")["return"]?.array)
        #expect(devices.count == 1 && devices[0]["backing"] != nil)
        #expect(await fixture.failure("nbd-server-stop") == nil)
        #expect(await fixture.event("BLOCK_EXPORT_DELETED") == ["id": "e"])
        #expect(await fixture.failure("blockdev-del", ["node-name": "top"]) == nil)
        #expect(await fixture.execute("query-named-block-nodes") == ["return": []])
        // A failure far down leaves nothing behind either.
        try Data("no image".utf8).write(to: URL(fileURLWithPath: chain.path(0)))
        let failure = try #require(await fixture.failure("blockdev-add", Self.qcow2(chain.path(length - 1))))
        #expect(failure.hasPrefix("Could not open backing file: ") && failure.utf8.count < 200, "\(failure)")
        #expect(await fixture.execute("query-named-block-nodes") == ["return": []])
        try await fixture.stop()
    }

    @Test("an image that is its own backing file, directly or by way of others, is refused")
    func loops() async throws {
        let chain = try Chain(length: 2)
        let fixture = try ServiceFixture()
        func rebase(_ image: Int, on name: String) throws {
            try run("qemu-img", ["rebase", "-q", "-u", "-F", "qcow2", "-b", name, chain.path(image)])
        }
        try rebase(0, on: Chain.name(0))
        var failure = try #require(await fixture.failure("blockdev-add", Self.qcow2(chain.path(0))))
        #expect(failure == "Could not open backing file: Backing file '\(chain.path(0))' creates an infinite loop.")
        try rebase(0, on: Chain.name(1))
        failure = try #require(await fixture.failure("blockdev-add", Self.qcow2(chain.path(0))))
        #expect(failure.contains("infinite loop"))
        // The same file under ever longer names.
        try rebase(0, on: "./" + Chain.name(0))
        failure = try #require(await fixture.failure("blockdev-add", Self.qcow2(chain.path(0))))
        #expect(failure.contains("infinite loop"))
        try FileManager.default.createSymbolicLink(atPath: chain.scratch.file("link.qcow2"), withDestinationPath: chain.path(0))
        try rebase(0, on: "link.qcow2")
        failure = try #require(await fixture.failure("blockdev-add", Self.qcow2(chain.path(0))))
        #expect(failure.contains("infinite loop"))
        // An image that names itself can be used all the same by a user who says what is below it.
        var options = try #require(Self.qcow2(chain.path(0)).object)
        options["backing"] = nil as JSONValue?
        options["backing"] = .some(.null)
        #expect(await fixture.failure("blockdev-add", .object(options)) == nil)
        try await fixture.stop()
    }

    @Test("trees nested too deeply are refused, inline and by reference")
    func deepTrees() async throws {
        let fixture = try ServiceFixture()
        func nested(_ depth: Int) -> JSONValue {
            var tree: JSONValue = ["driver": "null-co"]
            for _ in 0..<depth { tree = ["driver": "raw", "file": tree] }
            var root = tree.object ?? JSONObject()
            root["node-name"] = "root"
            return .object(root)
        }
        #expect(await fixture.failure("blockdev-add", nested(90)) == nil)
        #expect(await fixture.failure("blockdev-del", ["node-name": "root"]) == nil)
        for depth in [110, 1000] {
            let failure = try #require(await fixture.failure("blockdev-add", nested(depth)))
            #expect(failure.contains("deep") || failure.contains("other nodes"), "\(failure)")
        }
        #expect(await fixture.failure("blockdev-add", ["driver": "null-co", "node-name": "n0"]) == nil)
        var failure: String?
        var count = 0
        while failure == nil, count < 1000 {
            failure = await fixture.failure(
                "blockdev-add", ["driver": "raw", "node-name": .string("n\(count + 1)"), "file": .string("n\(count)")])
            count += 1
        }
        #expect(failure?.contains("more than 100 other nodes") == true && count > 90, "\(count): \(failure ?? "")")
        let nodes = try #require(await fixture.execute("query-named-block-nodes", ["flat": true])["return"]?.array)
        #expect(nodes.count == count && nodes.allSatisfy { ($0["file"]?.string?.utf8.count ?? 0) < 4096 })
        try await fixture.stop()
    }
}
