import Foundation
import QAPIRuntime
import StorageCommands
import Testing

@Suite("statistics")
struct StatisticsTests {
    /// A qcow2 image behind an NBD export with the id `e`, on a service of its own.
    private struct Bench {
        let scratch: Scratch
        let fixture: ServiceFixture
        var uri: String { "nbd+unix:///disk?socket=" + scratch.file("nbd.sock") }

        init() async throws {
            scratch = try Scratch()
            fixture = try ServiceFixture()
            try run("qemu-img", ["create", "-q", "-f", "qcow2", scratch.file("disk.qcow2"), "4M"])
            let address: JSONValue = ["type": "unix", "data": ["path": .string(scratch.file("nbd.sock"))]]
            let file: JSONValue = ["driver": "file", "node-name": "file", "filename": .string(scratch.file("disk.qcow2"))]
            #expect(await fixture.failure("nbd-server-start", ["addr": address]) == nil)
            #expect(await fixture.failure("blockdev-add", ["driver": "qcow2", "node-name": "disk", "discard": "unmap", "file": file]) == nil)
            #expect(await fixture.failure("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk", "writable": true]) == nil)
        }

        func io(_ commands: String...) throws {
            try run("qemu-io", ["-f", "raw", "-t", "none", "-d", "unmap"] + commands.flatMap { ["-c", $0] } + [uri])
        }

        func device() async throws -> JSONValue {
            let answer = await fixture.execute("query-blockstats")
            return try #require(answer["return"]?.array?.first { $0["device"] == "e" }, "\(answer)")
        }
    }

    @Test("requests of an export's clients are counted by kind, with their bytes and the time they took")
    func counts() async throws {
        let bench = try await Bench()
        #expect(try await bench.device()["stats"]?["idle_time_ns"] == nil, "nothing has been done yet")
        let began = ContinuousClock.now
        try bench.io("write -P 1 0 64k", "write -P 2 1M 128k", "flush", "discard 1M 64k", "write -z 2M 64k")
        try bench.io("read -P 1 0 4k", "read 0 64k", "read 1M 1M")
        let device = try await bench.device()
        let elapsed = Int((ContinuousClock.now - began) / .nanoseconds(1))
        let stats = try #require(device["stats"])
        #expect(device["node-name"] == "disk" && device["parent"]?["node-name"] == "file")
        #expect(stats["wr_operations"] == 3 && stats["wr_bytes"] == .integer((64 + 128 + 64) << 10))
        // qemu-io may ask for zeroes in pieces when it reads; the bytes are what they are.
        #expect((stats["rd_operations"]?.integer ?? 0) >= 3 && stats["rd_bytes"] == .integer((4 + 64 + 1024) << 10))
        #expect(stats["unmap_operations"] == 1 && stats["unmap_bytes"] == 65536)
        #expect((stats["flush_operations"]?.integer ?? 0) >= 1)
        for kind in ["rd", "wr", "flush", "unmap"] {
            let time = try #require(stats["\(kind)_total_time_ns"]?.integer)
            #expect(time > 0 && time < elapsed, "\(kind): \(time) of \(elapsed) ns")
            #expect(stats["failed_\(kind)_operations"] == 0 && stats["invalid_\(kind)_operations"] == 0)
        }
        let idle = try #require(stats["idle_time_ns"]?.integer)
        #expect(idle > 0 && idle < elapsed)
        #expect(stats["account_invalid"] == true && stats["account_failed"] == true && stats["timed_stats"] == [])
        #expect(stats["rd_latency_histogram"] == nil)
        try await bench.fixture.stop()
    }

    @Test("the furthest write is known for every node it went through, and files count their discards")
    func nodes() async throws {
        let bench = try await Bench()
        try bench.io("write -P 1 1M 64k", "write -P 1 0 64k", "discard 1M 64k", "flush")
        let answer = await bench.fixture.execute("query-blockstats", ["query-nodes": true])
        let nodes = try #require(answer["return"]?.array)
        let disk = try #require(nodes.first { $0["node-name"] == "disk" }), file = try #require(nodes.first { $0["node-name"] == "file" })
        #expect(disk["stats"]?["wr_highest_offset"] == .integer((1 << 20) + 65536))
        // Two clusters of data, and metadata in front of them.
        let highest = try #require(file["stats"]?["wr_highest_offset"]?.integer)
        let size = try #require(FileManager.default.attributesOfItem(atPath: bench.scratch.file("disk.qcow2"))[.size] as? Int)
        #expect(highest > 2 * 65536 && highest <= size)
        #expect(file["driver-specific"]?["driver"] == "file")
        #expect(disk["driver-specific"] == nil && disk["parent"]?["node-name"] == "file")
        try await bench.fixture.stop()
    }

    @Test("histograms count every request once, in the bin of its time")
    func histograms() async throws {
        let bench = try await Bench()
        let set = "block-latency-histogram-set"
        // Nothing takes an hour, and nothing less than a nanosecond.
        #expect(await bench.fixture.failure(set, ["id": "e", "boundaries": [1, 3_600_000_000_000], "boundaries-write": [3_600_000_000_000]]) == nil)
        try bench.io("write -P 1 0 64k", "write -P 1 64k 64k", "read 0 4k", "flush")
        var stats = try #require(try await bench.device()["stats"])
        #expect(stats["wr_latency_histogram"] == ["boundaries": [3_600_000_000_000], "bins": [2, 0]])
        let reads = try #require(stats["rd_operations"])
        #expect(stats["rd_latency_histogram"]?["bins"] == [0, reads, 0])
        #expect(stats["flush_latency_histogram"]?["bins"]?[1] == stats["flush_operations"])
        #expect(stats["zone_append_latency_histogram"]?["bins"] == [0, 0, 0])
        // A new one for one kind leaves the others alone.
        #expect(await bench.fixture.failure(set, ["id": "e", "boundaries-read": [1]]) == nil)
        stats = try #require(try await bench.device()["stats"])
        #expect(stats["rd_latency_histogram"] == ["boundaries": [1], "bins": [0, 0]])
        #expect(stats["wr_latency_histogram"]?["bins"] == [2, 0])
        // Refused ones change nothing.
        for bad: JSONValue in [[], [0], [5, 5], [10, 9]] {
            let message = try #require(await bench.fixture.failure(set, ["id": "e", "boundaries": [7], "boundaries-read": bad]))
            #expect(message.contains("'e'") && message.contains("read"))
        }
        #expect(try await bench.device()["stats"]?["wr_latency_histogram"]?["bins"] == [2, 0])
        #expect(await bench.fixture.failure(set, ["id": "absent"]) == "Device 'absent' not found")
        #expect(await bench.fixture.failure(set, ["id": "e"]) == nil)
        #expect(try await bench.device()["stats"]?["wr_latency_histogram"] == nil)
        try await bench.fixture.stop()
    }

    @Test("a conflict's facts are in the graph: who holds what, who shares what")
    func conflictFacts() async throws {
        let scratch = try Scratch()
        let fixture = try ServiceFixture()
        let path = JSONValue.string(scratch.disk("disk.img", byteCount: 65536))
        #expect(await fixture.failure("blockdev-add", ["driver": "file", "node-name": "file", "filename": path]) == nil)
        try run("qemu-img", ["create", "-q", "-f", "qcow2", scratch.file("disk.img"), "1M"])
        #expect(await fixture.failure("blockdev-add", ["driver": "qcow2", "node-name": "one", "file": "file"]) == nil)
        let message = try #require(await fixture.failure("blockdev-add", ["driver": "qcow2", "node-name": "two", "file": "file"]))
        #expect(message.contains("'one'") && message.contains("'two'"))
        let graph = try #require(await fixture.execute("x-debug-query-block-graph")["return"])
        let nodes = try #require(graph["nodes"]?.array)
        let one = try #require(nodes.first { $0["name"] == "one" }?["id"]), file = try #require(nodes.first { $0["name"] == "file" }?["id"])
        let edge = try #require(graph["edges"]?.array?.first { $0["parent"] == one && $0["child"] == file })
        #expect(edge["perm"]?.array?.contains("write") == true && edge["shared-perm"]?.array?.contains("write") == false)
        #expect(!nodes.contains { $0["name"] == "two" }, "nothing of what failed remains")
        try await fixture.stop()
    }
}
