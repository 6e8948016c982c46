import BlockGraph
import DriverTesting
import Foundation
import IOCore
import ManagedObjects
import QCOW2
import StorageCommands
import StorageSchema
import StrataBase
import StrataTesting

/// A graph on a thread of its own, with every driver and with simulated disks in place of `null-co`, and a folder for files.
final class FilterBench: Sendable {
    let context: IOContext
    let graph: BlockGraph
    let folder: String

    private init() throws {
        context = try IOContext.startThread(name: "filters")
        graph = BlockGraph(context: context, drivers: DriverCatalog.registry.replacing(SimulatedDiskDriver.self))
        // On a disk: tmpfs has no way to reserve zeroes.
        folder = "/tmp/strata-filters-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    }

    /// Runs `body` on the graph's thread and takes everything down.
    static func run(_ body: @escaping @Sendable (FilterBench) async throws -> Void) async throws {
        let bench = try FilterBench()
        let result: Result<Void, any Error> = await withCheckedContinuation { continuation in
            bench.context.spawn {
                do {
                    try await body(bench)
                    try await bench.graph.closeAll()
                    continuation.resume(returning: .success(()))
                } catch { continuation.resume(returning: .failure(error)) }
            }
        }
        bench.context.stop()
        bench.context.join()
        try FileManager.default.removeItem(atPath: bench.folder)
        try result.get()
    }

    func file(_ name: String) -> String { folder + "/" + name }

    func emptyFile(_ name: String) -> String {
        _ = FileManager.default.createFile(atPath: file(name), contents: nil)
        return file(name)
    }

    func writer(on name: String, _ used: BlockPermissions = [.consistentRead, .write]) async throws -> BlockBackend {
        try await graph.makeBackend(named: "test", on: name, PermissionGrant(used: used, shared: .all))
    }
}

/// Runs an independent program, which must succeed, and returns what it printed.
@discardableResult
func run(_ tool: String, _ arguments: String...) throws -> String { try mustRun(tool, arguments, joinsErrors: true).text }

func failure(_ body: () async throws -> Void) async throws -> String? {
    do {
        try await body()
        return nil
    } catch let error as BlockError { return error.description }
}
