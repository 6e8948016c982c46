import BasicDrivers
import BlockGraph
import Foundation
import IOCore
import StorageSchema
import StrataBase
import StrataTesting
import Testing

@Suite("graph changes and permissions")
struct GraphChangeTests {
    @Test("two writers that exclude each other are refused, and the message names both")
    func conflict() async throws {
        let bench = try GraphBench()
        defer { bench.close() }
        let path = try bench.file("disk", size: 1 << 20)
        try await bench.run { graph in
            try await graph.add(fileOptions(path, name: "disk"))
            let first = try await graph.makeBackend(named: "block export 'a'", on: "disk", writingAlone)
            let refusal = await message { _ = try await graph.makeBackend(named: "block export 'b'", on: "disk", writing) }
            #expect(
                refusal == "Permission conflict on node 'disk': permissions 'write' are both required by block export 'b' (uses node 'disk' as 'root' child) "
                    + "and unshared by block export 'a' (uses node 'disk' as 'root' child)")
            // The refused one has left nothing behind: a reader is welcome, and the writer still writes.
            let reader = try await graph.makeBackend(named: "reader", on: "disk", reading)
            let data = IOBuffer(byteCount: 512)
            data.vector.fill(with: 3)
            try await first.write(data.vector, at: GuestOffset(0))
            await graph.release(first)
            await graph.release(reader)
            let second = try await graph.makeBackend(named: "block export 'b'", on: "disk", writing)
            await graph.release(second)
            try await graph.closeAll()
        }
    }

    @Test("a tree that fails to open leaves the graph as it was")
    func failedAdd() async throws {
        let bench = try GraphBench()
        defer { bench.close() }
        let path = try bench.file("disk", size: 1 << 20)
        try await bench.run { graph in
            try await graph.add(fileOptions(path, name: "disk"))
            let bad: [(BlockdevOptions, String)] = [
                (fileOptions(path, name: "disk"), "Duplicate nodes with node-name='disk'"),
                (fileOptions("\(path)-missing", name: "other"), "Could not open '\(path)-missing': No such file or directory"),
                (fileOptions("/dev/null", name: "other"), "'/dev/null' is neither a regular file nor a block device"),
                (fileOptions(path, name: "9lives"), "Invalid node-name: '9lives'"),
                (fileOptions(path, name: String(repeating: "n", count: 32)), "Node name too long"),
                (rawOptions(over: "nowhere", name: "r"), "Cannot find device='nowhere' nor node-name='nowhere'"),
                (rawOptions(over: "r", name: "r"), "Node 'r' would be its own descendant"),
                (rawOptions(over: "disk", name: "r", offset: 2 << 20), "Offset (2097152) cannot be greater than size of the containing file (1048576)"),
                (rawOptions(over: "disk", name: "r", offset: 512, size: 1 << 20), "The sum of offset (512) and size (1048576) has to be smaller or equal to the actual size of the containing file (1048576)"),
                (rawOptions(over: "disk", name: "r", offset: Int.min), "Value '\(Int.min)' is out of range for parameter 'offset'"),
            ]
            for (options, expected) in bad {
                let found = await message { try await graph.add(options) }
                #expect(found?.hasPrefix(expected) == true, "expected \(expected), got \(found ?? "no error")")
                #expect(await graph.allNodes.map(\.name) == ["disk"])
            }
            // An inline child whose parent fails goes with it.
            let inner = BlockdevOptions(.raw(BlockdevOptionsRaw(file: .definition(fileOptions(path, name: "inner")), size: 4 << 20)), nodeName: "outer")
            #expect(await message { try await graph.add(inner) } != nil)
            #expect(await graph.node(named: "inner") == nil)
            try await graph.closeAll()
        }
    }

    @Test("a node in use is not deleted; its inline children go with it when it is")
    func removal() async throws {
        let bench = try GraphBench()
        defer { bench.close() }
        let path = try bench.file("disk", size: 1 << 20)
        try await bench.run { graph in
            try await graph.add(fileOptions(path, name: "base"))
            try await graph.add(rawOptions(over: "base", name: "top"))
            #expect(await message { try await graph.remove(nodeNamed: "base") }?.hasPrefix("Block device base is in use") == true)
            #expect(await message { try await graph.remove(nodeNamed: "none") } == "Failed to find node with node-name='none'")
            try await graph.remove(nodeNamed: "top")
            try await graph.remove(nodeNamed: "base")
            let tree = BlockdevOptions(.raw(BlockdevOptionsRaw(file: .definition(fileOptions(path, name: "child")))), nodeName: "parent")
            try await graph.add(tree)
            #expect(await message { try await graph.remove(nodeNamed: "child") } == "Node child is not owned by the monitor")
            let backend = try await graph.makeBackend(named: "user", on: "parent", reading)
            #expect(await message { try await graph.remove(nodeNamed: "parent") }?.contains("in use") == true)
            await graph.release(backend)
            try await graph.remove(nodeNamed: "parent")
            #expect(await graph.allNodes.isEmpty)
        }
    }

    @Test("an auto-read-only file is open for writing exactly while somebody writes")
    func autoReadOnly() async throws {
        let bench = try GraphBench()
        defer { bench.close() }
        let path = try bench.file("disk", size: 1 << 20)
        try await bench.run { [self] graph in
            try await graph.add(fileOptions(path, name: "disk", autoReadOnly: true))
            #expect(await settles(path, [O_RDONLY]))
            let reader = try await graph.makeBackend(named: "reader", on: "disk", reading)
            #expect(await settles(path, [O_RDONLY]))
            let writer = try await graph.makeBackend(named: "writer", on: "disk", writing)
            #expect(await settles(path, [O_RDWR]))
            let data = IOBuffer(byteCount: 4096)
            data.vector.fill(with: 9)
            try await writer.write(data.vector, at: GuestOffset(8192))
            await graph.release(writer)
            #expect(await settles(path, [O_RDONLY]))
            let back = IOBuffer(byteCount: 4096)
            try await reader.read(back.vector, at: GuestOffset(8192))
            #expect(back.withBytes { $0.unsafeLoadUnaligned(fromByteOffset: 77, as: UInt8.self) } == 9)
            await graph.release(reader)
            try await graph.closeAll()
        }
        #expect(await settles(path, []))
    }

    @Test("a read-only node refuses writers by name")
    func readOnly() async throws {
        let bench = try GraphBench()
        defer { bench.close() }
        let path = try bench.file("disk", size: 1 << 20)
        try await bench.run { graph in
            try await graph.add(fileOptions(path, name: "disk", readOnly: true))
            try await graph.add(rawOptions(over: "disk", name: "top"))
            #expect(await message { _ = try await graph.makeBackend(named: "w", on: "disk", writing) } == "Block node 'disk' is read-only")
            #expect(await message { _ = try await graph.makeBackend(named: "w", on: "top", writing) } == "Block node 'disk' is read-only")
            try await graph.closeAll()
        }
    }

    @Test("QEMU respects our image locks and we respect its")
    func locks() async throws {
        let bench = try GraphBench(in: "/tmp")
        defer { bench.close() }
        let path = try bench.file("disk", size: 1 << 20)
        try await bench.run { graph in
            try await graph.add(fileOptions(path, name: "disk"))
            let writer = try await graph.makeBackend(named: "writer", on: "disk", writingAlone)
            #expect(try run("qemu-io", ["-f", "raw", "-c", "write 0 512", path], joinsErrors: true).text.contains("Failed to get"))
            #expect(try run("qemu-img", ["info", "-f", "raw", "-U", path]).succeeded)
            await graph.release(writer)
            #expect(try run("qemu-io", ["-f", "raw", "-c", "write 0 512", path]).succeeded)
            try await graph.closeAll()
        }
        // The other way round: a QEMU process holds the image while we try. It is told to leave by closing its input.
        let holder = try ChildProcess("qemu-io", ["-f", "raw", path], input: nil)
        try holder.type("read 0 512\n")
        // Its answer to the first command proves that it has the image open.
        let isOpen = try waitUntil { try holder.outputSoFar().output.contains("ops/sec") }
        #expect(isOpen)
        try await bench.run { graph in
            try await graph.add(fileOptions(path, name: "disk", autoReadOnly: true))
            let refusal = await message { _ = try await graph.makeBackend(named: "writer", on: "disk", writingAlone) }
            #expect(refusal?.contains("\"write\" lock") == true, "got \(refusal ?? "no error")")
        }
        holder.closeInput()
        try holder.wait()
        try await bench.run { graph in
            let writer = try await graph.makeBackend(named: "writer", on: "disk", writingAlone)
            await graph.release(writer)
            try await graph.closeAll()
        }
    }

    /// Whether `path` comes to be open in these modes. A worker thread that helped to open a file lets go of its reference a moment after it has
    /// answered, so that the old descriptor may be seen for a moment longer.
    private func settles(_ path: String, _ modes: [Int32]) async -> Bool {
        let deadline = ContinuousClock.now + .seconds(10)
        while ContinuousClock.now < deadline {
            if openModes(of: path) == modes { return true }
            await Task.yield()
        }
        return false
    }

    /// How this process has `path` open: the access modes of its descriptors.
    private func openModes(of path: String) -> [Int32] {
        let entries = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
        return entries.compactMap { entry in
            guard (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\(entry)")) == path, let fd = Int32(entry) else { return nil }
            return fcntl(fd, F_GETFL) & O_ACCMODE
        }
    }
}
