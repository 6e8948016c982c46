import BasicDrivers
import BlockGraph
import Foundation
import IOCore
import StorageSchema
import StrataBase
import StrataTesting
import Testing

@Suite("file: space")
struct FileSpaceTests {
    static let engines: [BlockdevAioOptions] = [.threads, .native, .ioUring]

    /// A backend over one `file` node, on an I/O thread.
    private static func withFile(
        _ path: String, aio: BlockdevAioOptions? = nil, _ body: @escaping @Sendable (BlockBackend) async throws -> Void
    ) async throws {
        let context = try IOContext.startThread(name: "space")
        defer {
            context.stop()
            context.join()
        }
        let result: Result<Void, any Error> = await withCheckedContinuation { continuation in
            context.spawn {
                do {
                    let graph = BlockGraph(context: context, drivers: DriverRegistry([FileDriver.self]))
                    var options = BlockdevOptions(.file(BlockdevOptionsFile(filename: path, aio: aio)), nodeName: "file")
                    options.discard = .unmap
                    // Native AIO is for files that bypass the cache.
                    if aio == .native { options.cache = BlockdevCacheOptions(direct: true) }
                    try await graph.add(options)
                    let backend = try await graph.makeBackend(
                        named: "test", on: "file", PermissionGrant(used: [.consistentRead, .write, .resize], shared: .all))
                    let result: Result<Void, any Error>
                    do { result = .success(try await body(backend)) } catch { result = .failure(error) }
                    await graph.release(backend)
                    try await graph.closeAll()
                    continuation.resume(returning: result)
                } catch { continuation.resume(returning: .failure(error)) }
            }
        }
        try result.get()
    }

    private static func write(_ byte: UInt8, _ count: Int, at offset: Int, to backend: BlockBackend) async throws {
        let buffer = IOBuffer(byteCount: count)
        buffer.vector.fill(with: byte)
        try await backend.write(buffer.vector, at: GuestOffset(offset))
        withExtendedLifetime(buffer) {}
    }

    private static func read(_ count: Int, at offset: Int, from backend: BlockBackend) async throws -> [UInt8] {
        let buffer = IOBuffer(byteCount: count)
        try await backend.read(buffer.vector, at: GuestOffset(offset))
        return buffer.withBytes { bytes in (0..<count).map { bytes.unsafeLoadUnaligned(fromByteOffset: $0, as: UInt8.self) } }
    }

    /// The kernel writes as much as there is room for and says how much that was, then that there is no room: short writes and their end.
    @Test("a full file system is an error, harms nothing that is there, and is over when there is room again", arguments: engines, ["ext4", "xfs"])
    func noSpace(aio: BlockdevAioOptions, type: String) async throws {
        let mounted = try MountedFileSystem(type, byteCount: type == "xfs" ? 320 << 20 : 16 << 20)
        defer { mounted.unmount() }
        let (disk, ballast) = (mounted.path + "/disk", mounted.path + "/ballast")
        let byteCount = 4 << 20
        try mustRun("truncate", ["-s", "\(byteCount)", disk])
        try await Self.withFile(disk, aio: aio) { backend in
            try await Self.write(1, byteCount / 4, at: 0, to: backend)
            try await backend.flush()
            // Everything but a megabyte or two.
            let free = try #require(try FileManager.default.attributesOfFileSystem(forPath: mounted.path)[.systemFreeSize] as? Int)
            try mustRun("fallocate", ["-l", "\(free - (3 << 19))", ballast])
            let error = try await #require(throws: BlockError.self) {
                try await Self.write(2, byteCount / 2 + (1 << 19), at: byteCount / 4, to: backend)
                try await backend.flush()
            }
            #expect(error.code == .noSpace, "\(error)")
            let before = try await Self.read(byteCount / 4, at: 0, from: backend)
            #expect(before.allSatisfy { $0 == 1 })
            #expect(backend.length == byteCount)
            try FileManager.default.removeItem(atPath: ballast)
            try await Self.write(3, byteCount / 2, at: byteCount / 4, to: backend)
            let after = try await Self.read(byteCount / 2, at: byteCount / 4, from: backend)
            #expect(after.allSatisfy { $0 == 3 })
        }
    }

    @Test("a write that ends early goes on where it ended")
    func shortWrites() async throws {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 1, count: 65536), to: "disk")
        // strace answers the first write of a thread in the kernel's place: 4096 bytes, which were not written.
        let daemon = try Daemon(
            launcher: [
                "strace", "-f", "-qq", "-o", "/dev/null", "-P", folder.path("disk"), "-e", "trace=pwrite64", "-e", "inject=pwrite64:retval=4096:when=1",
            ], in: folder)
        try daemon.monitor.execute(
            "blockdev-add", ["driver": "file", "node-name": "disk", "filename": "disk", "aio": "threads", "cache": ["direct": true]])
        try daemon.monitor.execute("block-export-add", ["type": "nbd", "id": "disk", "node-name": "disk", "writable": true])
        try QEMU.io(daemon.uri("disk"), format: "raw", ["write -P 2 0 64k"], in: folder)
        try daemon.quit()
        // Which threads took part is up to the pool.
        let contents = try folder.read("disk")
        let skipped = contents.prefix { $0 == 1 }.count
        #expect((4096...32768).contains(skipped) && skipped.isMultiple(of: 4096) && contents.dropFirst(skipped).allSatisfy { $0 == 2 }, "\(skipped)")
    }

    @Test("a read that ends early goes on where it ended")
    func shortReads() async throws {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 3, count: 65536), to: "disk")
        let daemon = try Daemon(
            launcher: [
                "strace", "-f", "-qq", "-o", "trace", "-P", folder.path("disk"), "-e", "trace=pread64", "-e", "inject=pread64:retval=512:when=1",
            ], in: folder)
        try daemon.monitor.execute(
            "blockdev-add", ["driver": "file", "node-name": "disk", "filename": "disk", "aio": "threads", "cache": ["direct": true], "read-only": true])
        try daemon.monitor.execute("block-export-add", ["type": "nbd", "id": "disk", "node-name": "disk"])
        // The bytes that were not read show whatever the buffer had; those behind them come from the second call.
        let finished = try mustRun("qemu-io", ["-r", "-f", "raw", "-c", "read -P 3 -s 32k -l 32k 0 64k", daemon.uri("disk")], in: folder.url)
        #expect(!finished.text.contains("failed"), "\(finished)")
        try daemon.quit()
        let trace = try String(contentsOfFile: folder.path("trace"), encoding: .utf8)
        #expect(trace.contains("65536, 0) = 512 (INJECTED)") && trace.contains("65024, 512)"), "\(trace)")
    }

    @Test("space is reserved as asked when a file is made longer, and not at all when that fails", arguments: [PreallocMode.off, .falloc, .full])
    func preallocation(mode: PreallocMode) async throws {
        let mounted = try MountedFileSystem("ext4", byteCount: 32 << 20)
        defer { mounted.unmount() }
        let path = mounted.path + "/disk"
        try mustRun("truncate", ["-s", "1M", path])
        @Sendable func onDisk() throws -> (size: Int, allocated: Int) {
            var status = stat()
            guard stat(path, &status) == 0 else { throw HarnessError("\(path) is gone") }
            return (Int(status.st_size), Int(status.st_blocks) * 512)
        }
        try await Self.withFile(path) { backend in
            try await backend.resize(to: 5 << 20, preallocation: mode)
            #expect(backend.length == 5 << 20)
            let grown = try onDisk()
            #expect(grown.size == 5 << 20)
            #expect(mode == .off ? grown.allocated == 0 : (4 << 20..<5 << 20).contains(grown.allocated), "\(grown)")
            let contents = try await Self.read(5 << 20, at: 0, from: backend)
            #expect(contents.allSatisfy { $0 == 0 })
            if mode == .off { return }
            let error = try await #require(throws: BlockError.self) { try await backend.resize(to: 256 << 20, preallocation: mode) }
            #expect(error.code == .noSpace, "\(error)")
            #expect(try onDisk().size == 5 << 20)
            #expect(backend.length == 5 << 20)
            await #expect(throws: BlockError.self) { try await backend.resize(to: 1 << 20, preallocation: mode) }
            await #expect(throws: BlockError.self) { try await backend.resize(to: 6 << 20, preallocation: .metadata) }
        }
    }

    @Test("what lies where is never told wrongly, whoever changes the file: data may be told of a hole that came later, a hole never of data")
    func map() async throws {
        let folder = try TemporaryFolder()
        let path = folder.path("disk")
        try mustRun("truncate", ["-s", "1M", path])
        let handle = try FileHandle(forUpdating: URL(filePath: path))
        let unit = 65536
        try await Self.withFile(path) { backend in
            func status(_ offset: Int) async throws -> String {
                let (status, _, _) = try await backend.blockStatus(of: GuestRange(GuestOffset(offset), byteCount: backend.length - offset))
                return "\(status.flags.contains(.zero) ? "zero" : "data") \(status.byteCount / unit)"
            }
            #expect(try await status(0) == "zero 16")
            // Somebody else writes into a hole that was told of.
            try handle.seek(toOffset: UInt64(4 * unit))
            try handle.write(contentsOf: Data([UInt8](repeating: 9, count: 4 * unit)))
            #expect(try await status(0) == "zero 4")
            #expect(try await status(4 * unit) == "data 4")
            // Somebody else makes a hole of what was told to be data: that may be told once more, and reads as zeroes.
            try mustRun("fallocate", ["-p", "-o", "\(5 * unit)", "-l", "\(unit)", path])
            let told = try await status(5 * unit)
            #expect(["data 3", "zero 1"].contains(told))
            let hole = try await Self.read(unit, at: 5 * unit, from: backend)
            #expect(hole.allSatisfy { $0 == 0 })
            // Our own changes are known at once.
            try await backend.discard(GuestRange(GuestOffset(6 * unit), byteCount: unit))
            #expect(try await status(6 * unit) == "zero 1")
            #expect(try await status(7 * unit) == "data 1")
            try await backend.writeZeroes(GuestRange(GuestOffset(7 * unit), byteCount: unit), flags: .mayUnmap)
            #expect(try await status(7 * unit) == "zero 9")
            try await Self.write(4, unit, at: 10 * unit, to: backend)
            #expect(try await status(10 * unit) == "data 1")
            // The file is cut off by somebody else, and grows again.
            try handle.truncate(atOffset: UInt64(2 * unit))
            try handle.truncate(atOffset: UInt64(16 * unit))
            try await Self.write(4, unit, at: 14 * unit, to: backend)
            #expect(try await status(14 * unit) == "data 1")
            #expect(try await status(11 * unit) == "zero 3")
        }
    }

    @Test("new files are advised to be allocated in large pieces, or as asked")
    func extentHint() throws {
        let mounted = try MountedFileSystem("xfs", byteCount: 320 << 20)
        defer { mounted.unmount() }
        for (arguments, expected) in [([], 1 << 20), (["-o", "extent_size_hint=256k"], 256 << 10), (["-o", "extent_size_hint=0"], 0)] {
            for program in [[Strata.binary, "img"], ["qemu-img"]] {
                let path = mounted.path + "/disk"
                try mustRun(program[0], program.dropFirst() + ["create", "-q", "-f", "raw"] + arguments + [path, "8M"])
                let told = try mustRun("xfs_io", ["-r", "-c", "extsize", path]).text
                #expect(told.hasPrefix("[\(expected)]"), "\(program) \(arguments): \(told)")
                try FileManager.default.removeItem(atPath: path)
            }
        }
    }
}
