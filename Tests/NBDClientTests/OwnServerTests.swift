import BasicDrivers
import BlockExports
import BlockGraph
import Foundation
import IOCore
import NBDClient
import NBDServer
import StorageSchema
import StrataBase
import StrataTesting
import Testing

/// Both ends are ours, with extended headers between them.
@Suite("NBD client and server of ours", .timeLimit(.minutes(2)))
struct OwnServerTests {
    /// Serves a raw file of 8 MiB on a thread of its own while `body` runs.
    private static func serving(allowsSeveral: Bool = true, _ body: (String) async throws -> Void) async throws {
        try await serving(allowsSeveral: allowsSeveral) { path, _ in try await body(path) }
    }

    private static func serving(allowsSeveral: Bool = true, _ body: (String, NBDExport) async throws -> Void) async throws {
        let folder = try TemporaryFolder()
        try folder.write([], to: "disk")
        #expect(truncate(folder.path("disk"), 8 << 20) == 0)
        let context = try IOContext.startThread(name: "server")
        let graph = BlockGraph(context: context, drivers: DriverRegistry([FileDriver.self, RawDriver.self]))
        try await graph.add(BlockdevOptions(.file(BlockdevOptionsFile(filename: folder.path("disk"))), nodeName: "disk", discard: .unmap))
        let server = NBDServer(.init(addresses: [.unix(path: folder.path("s"))]), context: context, registry: BlockExportRegistry(onDeleted: { _ in }))
        try await server.start()
        let export = try await server.addExport(
            BlockExportOptions(.nbd(BlockExportOptionsNbd(name: "", allocationDepth: true)), id: "e", nodeName: "disk", writable: true), graph: graph, contexts: [context],
            allowsSeveralConnections: allowsSeveral)
        let result: Result<Void, any Error>
        do { result = .success(try await body(folder.path("s"), export)) } catch { result = .failure(error) }
        await server.stop()
        try await graph.closeAll()
        context.stop()
        await BlockingPool.run { context.join() }
        try result.get()
    }

    @Test("a disk behaves like an array of bytes, over one connection and several", arguments: [1, 4])
    func model(connections: Int) async throws {
        try await Self.serving { path in
            let bench = try ClientBench()
            let backend = try await bench.open(ClientBench.options(path, connections: UInt32(connections)))
            try await bench.on { _ in
                var model = DiskModel(byteCount: 8 << 20, seed: runSeed)
                try await model.exercise(backend, rounds: 60)
                // The whole disk at once goes through splitting, long replies and the kernel's sendfile.
                try await DiskModel.Step.read(0, model.bytes).run(backend)
            }
            try await bench.close(backend)
            await bench.stop()
        }
    }

    @Test("as many connections are opened as asked for, where the server allows several, and each of them is used", arguments: [true, false], [1, 2, 5])
    func connections(allowed: Bool, count: Int) async throws {
        try await Self.serving(allowsSeveral: allowed) { path, export in
            let bench = try ClientBench()
            let backend = try await bench.open(ClientBench.options(path, connections: UInt32(count)))
            #expect(waitUntil { export.connectionCount == (allowed ? count : 1) })
            try await bench.on { _ in for _ in 0..<2 * count { try await DiskModel.Step.write(0, 4096, 1, fua: false).run(backend) } }
            try await bench.close(backend)
            #expect(waitUntil { export.connectionCount == 0 })
            await bench.stop()
        }
    }

    @Test("a context that the server has not is refused by its name")
    func noSuchContext() async throws {
        try await Self.serving { path in
            let bench = try ClientBench()
            await #expect { _ = try await bench.open(ClientBench.options(path, dirtyBitmap: "qemu:dirty-bitmap:none")) } throws: {
                "\($0)" == "requested x-dirty-bitmap qemu:dirty-bitmap:none not found"
            }
            await bench.stop()
        }
    }

    @Test("the depth of allocation is told through its context")
    func depth() async throws {
        try await Self.serving { path in
            let bench = try ClientBench()
            let backend = try await bench.open(ClientBench.options(path, dirtyBitmap: "qemu:allocation-depth"))
            let status = try await bench.on { _ in try await backend.blockStatus(of: GuestRange(GuestOffset(0), byteCount: 8 << 20)).status }
            // Depth 1 has the bit that means "hole" in base:allocation, which is how this option of QEMU's shows it.
            #expect(!status.flags.contains(.data))
            #expect(status.byteCount == 8 << 20)
            try await bench.close(backend)
            await bench.stop()
        }
    }
}
