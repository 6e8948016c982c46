import Foundation
import IOCore
import NBDServer
import StorageSchema
import StrataBase
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

    @Test("nbdinfo understands what the server offers", .enabled(if: isInstalled("nbdinfo")))
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

    @Test("nbdinfo lists every export with its description", .enabled(if: isInstalled("nbdinfo")))
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

    @Test("nbdcopy gets back what it puts in, with many requests and connections", .enabled(if: isInstalled("nbdcopy")), arguments: [1, 4])
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

    @Test("fio verifies its writes at several sizes and depths", .enabled(if: isInstalled("fio")), arguments: ["4k", "512-128k", "1m"])
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

    @Test("qemu-io: patterns, zeroes, discards and FUA are seen through the server and in the file", .enabled(if: isInstalled("qemu-io")))
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

    @Test("qemu-img converts out of and compares with the export", .enabled(if: isInstalled("qemu-img")))
    func qemuImg() async throws {
        let server = try await TestServer.withRawDisk(byteCount: 20 << 20, writable: false)
        try await server.client { _ in
            let result = try run("qemu-img", ["convert", "-f", "raw", "-O", "raw", server.uri, server.directory + "/out"])
            #expect(result.status == 0, "\(result.errors)")
            #expect(try run("cmp", [server.directory + "/out", server.diskPath]).status == 0)
        }
        await server.stop()
    }

    @Test("holes, data and zeroes of a sparse file are mapped as they are", .enabled(if: isInstalled("nbdinfo")))
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
}
