import BlockGraph
import Foundation
import IOCore
import NBDClient
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// The client against servers that others wrote.
@Suite("NBD client and its peers", .timeLimit(.minutes(4)))
struct PeerTests {
    /// Programs that serve 8 MiB of zeroes, and what is particular about them.
    static let servers: [(name: String, program: String, arguments: @Sendable (String, TemporaryFolder) -> [String])] = [
        ("qemu-nbd", "qemu-nbd", { socket, folder in ["-t", "-e", "8", "-f", "raw", "-k", socket, folder.path("disk")] }),
        ("nbdkit memory", "nbdkit", { socket, _ in ["-f", "-U", socket, "memory", "8M"] }),
        ("nbdkit file", "nbdkit", { socket, folder in ["-f", "-U", socket, "file", folder.path("disk")] }),
        ("nbdkit with blocks of 4096 bytes", "nbdkit", { socket, _ in
            ["-f", "-U", socket, "--filter=blocksize-policy", "memory", "8M", "blocksize-minimum=4096", "blocksize-preferred=64k", "blocksize-maximum=128k", "blocksize-error-policy=error"] }),
        ("nbdkit without extents, zeroes, trim, FUA", "nbdkit", { socket, _ in
            ["-f", "-U", socket, "--filter=noextents", "--filter=nozero", "--filter=fua", "memory", "8M"] }
        ),
        ("nbdkit that is late", "nbdkit", { socket, _ in ["-f", "-U", socket, "--filter=delay", "memory", "8M", "rdelay=1ms", "wdelay=1ms"] }),
        ("nbdkit without structured replies", "nbdkit", { socket, _ in ["-f", "-U", socket, "--no-sr", "memory", "8M"] }),
        ("nbdkit oldstyle", "nbdkit", { socket, _ in ["-f", "-o", "-U", socket, "memory", "8M"] }),
        ("nbdkit newstyle without GO", "nbdkit", { socket, _ in ["-f", "--mask-handshake=0", "-U", socket, "memory", "8M"] }),
    ]

    @Test("a disk on any server behaves like an array of bytes", arguments: servers.map(\.name), [1, 3])
    func model(name: String, connections: Int) async throws {
        let server = try #require(Self.servers.first { $0.name == name })
        let folder = try TemporaryFolder()
        try folder.write([], to: "disk")
        #expect(truncate(folder.path("disk"), 8 << 20) == 0)
        let socket = folder.path("s")
        let program = try ServerProgram(server.program, server.arguments(socket, folder), socket: socket)
        let bench = try ClientBench()
        let backend = try await bench.open(ClientBench.options(socket, connections: UInt32(connections)))
        #expect(backend.length == 8 << 20)
        try await bench.on { _ in
            var model = DiskModel(byteCount: 8 << 20, seed: runSeed)
            // This nbdkit offers flushes and zeroes to oldstyle clients and then refuses them; qemu-io gets the same answer.
            try await model.exercise(backend, rounds: 30, plainOnly: name == "nbdkit oldstyle")
        }
        try await bench.close(backend)
        await bench.stop()
        withExtendedLifetime(program) {}
    }

    @Test("the disk of Debian's nbd-server behaves like an array of bytes", arguments: [1, 3])
    func nbdServer(connections: Int) async throws {
        let folder = try TemporaryFolder()
        let program = try NBDServerProgram(in: folder, byteCount: 8 << 20)
        let bench = try ClientBench()
        let backend = try await bench.open(ClientBench.options(program.socket, export: "disk", connections: UInt32(connections)))
        #expect(backend.length == 8 << 20)
        let expected = try await bench.on { _ in
            var model = DiskModel(byteCount: 8 << 20, seed: runSeed)
            try await model.exercise(backend, rounds: 30)
            try await backend.flush()
            return model.bytes
        }
        try await bench.close(backend)
        await bench.stop()
        #expect(firstDifference(try folder.read("disk"), expected) == nil)
        withExtendedLifetime(program) {}
    }

    @Test("a server that tries again in its own time is waited for")
    func retry() async throws {
        let folder = try TemporaryFolder()
        let (socket, trouble) = (folder.path("s"), folder.path("trouble"))
        let program = try ServerProgram(
            "nbdkit",
            ["-f", "-U", socket, "--filter=retry", "--filter=error", "memory", "8M", "retries=50", "retry-delay=1", "retry-exponential=no", "error-rate=100%", "error-file=\(trouble)"],
            socket: socket)
        let bench = try ClientBench()
        let backend = try await bench.open(ClientBench.options(socket))
        try folder.write([], to: "trouble")
        let isWritten = Atomic<Bool>(false)
        async let writing: Void = bench.on { _ in
            try await DiskModel.Step.write(0, 100_000, 7, fua: false).run(backend)
            isWritten.store(true, ordering: .releasing)
        }
        // Long enough for the first attempt to have failed; were it not, the test would still pass.
        #expect(await BlockingPool.run { !waitUntil(atMost: .milliseconds(300)) { isWritten.load(ordering: .acquiring) } }, "it does not succeed while there is trouble")
        try FileManager.default.removeItem(atPath: trouble)
        try await writing
        try await bench.on { _ in try await DiskModel.Step.read(0, [UInt8](repeating: 7, count: 100_000)).run(backend) }
        try await bench.close(backend)
        await bench.stop()
        withExtendedLifetime(program) {}
    }

    @Test("block status is what the server says: holes, zeroes and data", arguments: ["qemu-nbd", "nbdkit file"])
    func blockStatus(name: String) async throws {
        let server = try #require(Self.servers.first { $0.name == name })
        let folder = try TemporaryFolder()
        try folder.write([], to: "disk")
        #expect(truncate(folder.path("disk"), 8 << 20) == 0)
        try mustRun("qemu-io", ["-f", "raw", "-c", "write -P 1 1M 1M", "-c", "write -P 1 4M 64k", folder.path("disk")])
        let socket = folder.path("s")
        let program = try ServerProgram(server.program, server.arguments(socket, folder), socket: socket)
        let bench = try ClientBench()
        let backend = try await bench.open(ClientBench.options(socket))
        let runs = try await bench.on { _ in
            var runs: [[Int]] = []
            var at = 0
            while at < backend.length {
                let (status, _, _) = try await backend.blockStatus(of: GuestRange(GuestOffset(at), byteCount: backend.length - at))
                let kind = status.flags.contains(.zero) ? 0 : 1
                if runs.last?[2] == kind { runs[runs.count - 1][1] += status.byteCount } else { runs.append([at, status.byteCount, kind]) }
                at += status.byteCount
            }
            return runs
        }
        let expected: [[Int]] = [
            [0, 1_048_576, 0], [1_048_576, 1_048_576, 1], [2_097_152, 2_097_152, 0], [4_194_304, 65536, 1], [4_259_840, 4_128_768, 0],
        ]
        #expect(runs == expected)
        try await bench.close(backend)
        await bench.stop()
        withExtendedLifetime(program) {}
    }

    @Test("an error of the server's is that request's error and nothing else's")
    func errors() async throws {
        let folder = try TemporaryFolder()
        let socket = folder.path("s")
        let program = try ServerProgram("nbdkit", ["-f", "-U", socket, "--filter=error", "memory", "8M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%", "error-pread=EIO", "error-pread-rate=50%"], socket: socket)
        let bench = try ClientBench()
        let backend = try await bench.open(ClientBench.options(socket))
        let (good, codes) = try await bench.on { _ in
            let buffer = IOBuffer(zeroed: 4096)
            defer { withExtendedLifetime(buffer) {} }
            var good = 0
            var codes: Set<BlockError.Code> = []
            for index in 0..<200 {
                do throws(BlockError) {
                    if index % 4 == 0 { try await backend.write(buffer.vector, at: GuestOffset(0)) } else { try await backend.read(buffer.vector, at: GuestOffset(4096 * index)) }
                    good += 1
                } catch { codes.insert(error.code) }
            }
            return (good, codes)
        }
        #expect(codes == [.noSpace, .io])
        #expect(good > 20 && good < 150)
        try await bench.close(backend)
        await bench.stop()
        withExtendedLifetime(program) {}
    }

    @Test("a copy from or to a server that cannot read or write fails, and says so", arguments: [false, true])
    func failedCopies(isTarget: Bool) throws {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 5, count: 8 << 20), to: "file")
        let socket = folder.path("s")
        let program = try ServerProgram(
            "nbdkit", ["-f", "-U", socket, "--filter=error", "file", folder.path("file"), isTarget ? "error-pwrite=ENOSPC" : "error-pread=EIO", isTarget ? "error-pwrite-rate=100%" : "error-pread-rate=100%"],
            socket: socket)
        let uri = "nbd+unix:///?socket=\(socket)"
        let words = isTarget ? ["convert", "-n", "-f", "raw", "-O", "raw", folder.path("file"), uri] : ["convert", "-f", "raw", "-O", "raw", uri, folder.path("copy")]
        let done = try run(Strata.binary, ["img"] + words)
        #expect(done.ending == .exited(1) && done.errorText.contains(isTarget ? "No space left on device" : "Input/output error"), "\(done)")
        withExtendedLifetime(program) {}
    }

    @Test("a read-only export: refused, degraded with auto-read-only, and one clear error for a writer")
    func readOnly() async throws {
        let folder = try TemporaryFolder()
        let socket = folder.path("s")
        let program = try ServerProgram("nbdkit", ["-f", "-r", "-U", socket, "memory", "1M"], socket: socket)
        let bench = try ClientBench()
        func failure(_ options: BlockdevOptions) async throws -> BlockError? {
            do {
                let backend = try await bench.open(options)
                try await bench.close(backend)
                return nil
            } catch let error as BlockError { return error }
        }
        #expect(try await failure(ClientBench.options(socket))?.description.contains("Permission denied") == true)
        let writer = try await failure(ClientBench.options(socket, autoReadOnly: true))
        #expect(writer?.code == .readOnly || writer?.code == .permissionConflict, "\(String(describing: writer))")
        for options in [ClientBench.options(socket, autoReadOnly: true), ClientBench.options(socket, readOnly: true)] {
            let backend = try await bench.open(options, writable: false)
            try await bench.close(backend)
        }
        await bench.stop()
        withExtendedLifetime(program) {}
    }

    @Test("an export that is not there, and a server that is not there, are named")
    func missing() async throws {
        let folder = try TemporaryFolder()
        let socket = folder.path("s")
        let bench = try ClientBench()
        await #expect { _ = try await bench.open(ClientBench.options(socket)) } throws: { "\($0)".contains(socket) && "\($0)".contains("No such file") }
        try folder.write([], to: "disk")
        #expect(truncate(folder.path("disk"), 1 << 20) == 0)
        let program = try ServerProgram("qemu-nbd", ["-t", "-x", "here", "-f", "raw", "-k", socket, folder.path("disk")], socket: socket)
        await #expect { _ = try await bench.open(ClientBench.options(socket, export: "there")) } throws: { "\($0)".contains("export not available") }
        try await bench.close(try await bench.open(ClientBench.options(socket, export: "here")))
        await bench.stop()
        withExtendedLifetime(program) {}
    }

    @Test("with open-timeout a server may come later")
    func openTimeout() async throws {
        let folder = try TemporaryFolder()
        let socket = folder.path("s")
        let bench = try ClientBench()
        async let opened = bench.open(ClientBench.options(socket, openTimeout: 60))
        let program = try ServerProgram("nbdkit", ["-f", "-U", socket, "memory", "1M"], socket: socket)
        try await bench.close(try await opened)
        await bench.stop()
        withExtendedLifetime(program) {}
    }
}
