import BasicDrivers
import BlockGraph
import Foundation
import IOCore
import NBDServer
import QCOW2
import StorageSchema
import StrataBase
import StrataTesting
import Testing

/// What independent programs make of the server, and whether the bytes are right on every path.
@Suite("NBD server and its peers", .timeLimit(.minutes(3)))
struct InteroperationTests {
    private static func patternFile(_ path: String, byteCount: Int, seed: Int = 1) throws {
        let result = try run("python3", ["-c", """
            import random, sys
            random.seed(\(seed))
            open('\(path)', 'wb').write(random.randbytes(\(byteCount)))
            """])
        #expect(result.status == 0, "\(result.errors)")
    }

    @Test("nbdinfo understands what the server offers")
    func nbdinfo() async throws {
        let server = try await TestServer.withRawDisk(byteCount: 64 << 20)
        let result = try await server.client { _ in try run("nbdinfo", ["--json", server.uri]) }
        #expect(result.status == 0, "\(result.errors)")
        for line in [
            "\"export-name\": \"disk\"", "\"export-size\": 67108864", "\"is_read_only\": false", "\"can_cache\": true", "\"can_df\": true",
            "\"can_fast_zero\": true", "\"can_flush\": true", "\"can_fua\": true", "\"can_multi_conn\": true", "\"can_trim\": true",
            "\"can_zero\": true", "\"base:allocation\"", "\"protocol\": \"newstyle-fixed\"",
        ] { #expect(result.output.contains(line), "\(line) is missing in \(result.output)") }
        await server.stop()
    }

    @Test("nbdinfo lists every export with its description")
    func nbdinfoList() async throws {
        let server = try await TestServer(
            nodes: { _ in [BlockdevOptions(.nullCo(BlockdevOptionsNull(size: 1 << 20, readZeroes: true)), nodeName: "n")] },
            exports: [
                TestServer.export("n", name: "one", id: "a", description: "the first", writable: false),
                TestServer.export("n", name: "zwei, drei", id: "b", writable: false), TestServer.export("n", name: "ünïcode", id: "c", writable: false),
            ])
        let result = try await server.client { _ in try run("nbdinfo", ["--list", "--json", server.uri]) }
        #expect(result.status == 0, "\(result.errors)")
        for text in ["\"one\"", "\"zwei, drei\"", "\"ünïcode\"", "the first"] { #expect(result.output.contains(text), "\(text)") }
        await server.stop()
    }

    @Test("nbdcopy gets back what it puts in, with many requests and connections", arguments: [1, 4])
    func nbdcopy(connections: Int) async throws {
        let server = try await TestServer.withRawDisk(byteCount: 48 << 20, threads: connections > 1 ? 2 : 0)
        let (source, target) = (server.directory + "/source", server.directory + "/target")
        try await server.client { _ in
            try Self.patternFile(source, byteCount: 48 << 20)
            let options = ["--connections=\(connections)", "--requests=32"]
            let into = try run("nbdcopy", options + ["--flush", source, server.uri])
            #expect(into.status == 0, "\(into.errors)")
            let out = try run("nbdcopy", options + [server.uri, target])
            #expect(out.status == 0, "\(out.errors)")
            #expect(try run("cmp", [source, target]).status == 0)
            #expect(try run("cmp", [source, server.diskPath]).status == 0)
        }
        await server.stop()
    }

    @Test("fio verifies its writes at several sizes and depths", arguments: ["4k", "512-128k", "1m"])
    func fio(blockSize: String) async throws {
        let server = try await TestServer.withRawDisk(byteCount: 32 << 20)
        let result = try await server.client { _ in
            try run("fio", [
                "--name=verify", "--ioengine=nbd", "--uri=" + server.uri, "--rw=randwrite", blockSize.contains("-") ? "--bsrange=" + blockSize : "--bs=" + blockSize,
                "--iodepth=16", "--size=32m", "--verify=crc32c", "--do_verify=1", "--randseed=7", "--verify_state_save=0",
            ])
        }
        #expect(result.status == 0, "\(result.output) \(result.errors)")
        await server.stop()
    }

    @Test("qemu-io: patterns, zeroes, discards and FUA are seen through the server and in the file")
    func qemuIO() async throws {
        let server = try await TestServer.withRawDisk(byteCount: 16 << 20)
        let commands = [
            "write -P 0x11 0 1M", "write -f -P 0x22 512 1024", "write -z 2M 1M", "write -z -u 3M 64k", "write -P 0x33 5M 3M", "discard 6M 1M", "flush",
            "read -P 0x22 512 1024", "read -P 0x11 1536 64k", "read -P 0 2M 1M", "read -P 0x33 5M 1M", "read -P 0x33 7M 1M", "aio_read -P 0x33 5M 64k", "aio_flush",
        ]
        try await server.client { _ in
            let result = try run("qemu-io", ["-f", "raw"] + commands.flatMap { ["-c", $0] } + [server.uri])
            #expect(result.status == 0 && !result.output.contains("failed") && !result.output.contains("rror"), "\(result.output) \(result.errors)")
            let direct = try run("qemu-io", ["-U", "-f", "raw", "-r", "-c", "read -P 0x22 512 1024", "-c", "read -P 0x33 5M 1M", server.diskPath])
            #expect(direct.status == 0 && !direct.output.contains("erification"), "\(direct.output) \(direct.errors)")
        }
        await server.stop()
    }

    @Test("qemu-img converts out of and compares with the export")
    func qemuImg() async throws {
        let server = try await TestServer.withRawDisk(byteCount: 20 << 20, writable: false)
        try await server.client { _ in
            let result = try run("qemu-img", ["convert", "-f", "raw", "-O", "raw", server.uri, server.directory + "/out"])
            #expect(result.status == 0, "\(result.errors)")
            #expect(try run("cmp", [server.directory + "/out", server.diskPath]).status == 0)
        }
        await server.stop()
    }

    @Test("holes, data and zeroes of a sparse file are mapped as they are")
    func blockStatus() async throws {
        let server = try await TestServer.withRawDisk(byteCount: 4 << 20)
        try await server.client { _ in
            let write = try run("qemu-io", ["-f", "raw", "-c", "write -P 1 1M 1M", "-c", "write -P 1 3M 64k", server.uri])
            #expect(write.status == 0, "\(write.errors)")
            let map = try run("nbdinfo", ["--map", server.uri])
            let lines = map.output.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
            #expect(lines.map { Array($0.prefix(3)) } == [
                ["0", "1048576", "3"], ["1048576", "1048576", "0"], ["2097152", "1048576", "3"], ["3145728", "65536", "0"], ["3211264", "983040", "3"],
            ], "\(map.output)")
        }
        await server.stop()
    }

    @Test("zeroes that a format knows of are told instead of sent, unless the client wants one piece or has no chunks")
    func holes() async throws {
        let size = 8 << 20
        let server = try await TestServer(
            drivers: [FileDriver.self, QCOW2Driver.self, RawDriver.self],
            prepare: { directory in
                for (program, arguments) in [
                    ("qemu-img", ["create", "-q", "-f", "qcow2", directory + "/disk", "8M"]),
                    ("qemu-io", ["-f", "qcow2", "-c", "write -P 7 1M 1M", "-c", "write -z 1536k 64k", "-c", "write -P 9 5M 100k", directory + "/disk"]),
                ] {
                    let result = try run(program, arguments)
                    #expect(result.status == 0, "\(result.errors)")
                }
            },
            nodes: { directory in
                [BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(BlockdevOptions(.file(BlockdevOptionsFile(filename: directory + "/disk")))))), nodeName: "disk")]
            }, exports: [TestServer.export("disk")])
        try await server.client { path in
            var model = [UInt8](repeating: 0, count: size)
            for (start, count, byte) in [(1 << 20, 1 << 20, UInt8(7)), (1536 << 10, 64 << 10, 0), (5 << 20, 100 << 10, 9)] {
                model.replaceSubrange(start..<start + count, with: repeatElement(byte, count: count))
            }
            let client = try RawClient(path)
            try client.enter("disk")
            let whole = try client.readStructured(at: 0, UInt32(size))
            #expect(isSame(whole, model))
            // Whole clusters of 64 KiB: sixteen of data without one, and two that hold the last write.
            #expect(client.holes == size - (15 + 2) << 16)
            let before = client.holes
            let piece = try client.readStructured(at: 0, UInt32(size), flags: 4)
            #expect(isSame(piece, model) && client.holes == before, "in one piece")
            var random = SeededGenerator(seed: 21)
            for _ in 0..<200 {
                let count = Int.random(in: 1...1 << 20, using: &random), start = Int.random(in: 0...size - count, using: &random)
                let data = try client.readStructured(at: UInt64(start), UInt32(count))
                #expect(isSame(data, Array(model[start..<start + count])), "\(count) bytes at \(start)")
            }
            let simple = try RawClient(path)
            try simple.enter("disk", structured: false)
            let data = try simple.readSimple(at: 0, UInt32(size))
            #expect(isSame(data, model))
            let copied = try run("nbdcopy", [server.uri, server.directory + "/copy"])
            #expect(copied.status == 0, "\(copied.errors)")
            #expect(isSame(try Data(contentsOf: URL(fileURLWithPath: server.directory + "/copy")), model))
        }
        await server.stop()
    }

    @Test("a qcow2 overlay takes and gives the same bytes as its clients know", arguments: [512, 65536])
    func qcow2(clusterSize: Int) async throws {
        let size = 24 << 20
        let server = try await TestServer(
            drivers: [FileDriver.self, QCOW2Driver.self, RawDriver.self],
            prepare: { directory in
                try Self.patternFile(directory + "/base.raw", byteCount: size, seed: 3)
                for arguments in [
                    ["convert", "-f", "raw", "-O", "qcow2", directory + "/base.raw", directory + "/base.qcow2"],
                    ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize)", "-F", "qcow2", "-b", directory + "/base.qcow2", directory + "/top.qcow2"],
                ] {
                    let result = try run("qemu-img", arguments)
                    #expect(result.status == 0, "\(result.errors)")
                }
            },
            nodes: { directory in
                [BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(BlockdevOptions(.file(BlockdevOptionsFile(filename: directory + "/top.qcow2")))))), nodeName: "disk")]
            }, exports: [TestServer.export("disk")])
        let directory = server.directory
        try await server.client { _ in
            // Through the overlay: first the base, then a mix, then only new data.
            let first = try run("nbdcopy", [server.uri, directory + "/first"])
            #expect(first.status == 0, "\(first.errors)")
            #expect(try run("cmp", [directory + "/base.raw", directory + "/first"]).status == 0)
            let patch = try run("qemu-io", ["-f", "raw", "-c", "write -P 7 1000 3000", "-c", "write -P 8 5M 1M", "-c", "write -z 8M 1M", "-c", "flush", server.uri])
            #expect(patch.status == 0, "\(patch.output) \(patch.errors)")
            let model = try run("qemu-io", ["-f", "raw", "-c", "write -P 7 1000 3000", "-c", "write -P 8 5M 1M", "-c", "write -P 0 8M 1M", directory + "/base.raw"])
            #expect(model.status == 0)
            let second = try run("nbdcopy", ["--requests=16", server.uri, directory + "/second"])
            #expect(second.status == 0, "\(second.errors)")
            #expect(try run("cmp", [directory + "/base.raw", directory + "/second"]).status == 0)
            try Self.patternFile(directory + "/new", byteCount: size, seed: 4)
            let into = try run("nbdcopy", ["--flush", directory + "/new", server.uri])
            #expect(into.status == 0, "\(into.errors)")
            let third = try run("nbdcopy", [server.uri, directory + "/third"])
            #expect(third.status == 0, "\(third.errors)")
            #expect(try run("cmp", [directory + "/new", directory + "/third"]).status == 0)
        }
        await server.server.stop()
        do { try await server.graph.remove(nodeNamed: "disk") } catch { Issue.record("\(error)") }
        try await server.client { _ in
            let check = try run("qemu-img", ["check", directory + "/top.qcow2"])
            #expect(check.status == 0, "\(check.output) \(check.errors)")
            let compare = try run("qemu-img", ["compare", "-f", "raw", "-F", "qcow2", directory + "/new", directory + "/top.qcow2"])
            #expect(compare.status == 0, "\(compare.output) \(compare.errors)")
        }
        await server.stop()
    }
}
