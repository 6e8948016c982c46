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
    private static func serving(_ body: (String) async throws -> Void) async throws {
        let folder = try TemporaryFolder()
        try folder.write([], to: "disk")
        #expect(truncate(folder.path("disk"), 8 << 20) == 0)
        let context = try IOContext.startThread(name: "server")
        let graph = BlockGraph(context: context, drivers: DriverRegistry([FileDriver.self, RawDriver.self]))
        try await graph.add(BlockdevOptions(.file(BlockdevOptionsFile(filename: folder.path("disk"))), nodeName: "disk", discard: .unmap))
        let server = NBDServer(.init(addresses: [.unix(path: folder.path("s"))]), context: context, registry: BlockExportRegistry(onDeleted: { _ in }))
        try await server.start()
        try await server.addExport(
            BlockExportOptions(.nbd(BlockExportOptionsNbd(name: "", allocationDepth: true)), id: "e", nodeName: "disk", writable: true), graph: graph, contexts: [context])
        let result: Result<Void, any Error>
        do { result = .success(try await body(folder.path("s"))) } catch { result = .failure(error) }
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
