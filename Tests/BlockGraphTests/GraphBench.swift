import BasicDrivers
import BlockGraph
import Foundation
import IOCore
import StorageSchema
import StrataBase
import Synchronization
import Testing

/// A graph on a thread of its own and a directory for its files; both go away with `close`.
final class GraphBench: Sendable {
    let context: IOContext
    let graph: BlockGraph
    let directory: String

    /// - Parameter drivers: those of this build, unless a test brings its own.
    init(in parent: String = "/dev/shm", drivers: [any BlockDriver.Type] = [FileDriver.self, RawDriver.self, NullDriver.self]) throws {
        context = try IOContext.startThread(name: "graph")
        graph = BlockGraph(context: context, drivers: DriverRegistry(drivers))
        directory = "\(parent)/strata-graph-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    }

    func close() {
        context.stop()
        context.join()
        try? FileManager.default.removeItem(atPath: directory)
    }

    /// Makes a file of `size` bytes and returns its path.
    func file(_ name: String, size: Int) throws -> String {
        let path = "\(directory)/\(name)"
        _ = FileManager.default.createFile(atPath: path, contents: nil)
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try handle.truncate(atOffset: UInt64(size))
        try handle.close()
        return path
    }

    /// Runs `body` as a task of the graph's context.
    func run<R: Sendable>(_ body: @escaping @Sendable (BlockGraph) async throws -> R) async throws -> R {
        try await run(on: context, body)
    }

    func run<R: Sendable>(on context: IOContext, _ body: @escaping @Sendable (BlockGraph) async throws -> R) async throws -> R {
        let result: Result<R, any Error> = await withCheckedContinuation { continuation in
            context.spawn { [graph] in
                do { continuation.resume(returning: .success(try await body(graph))) } catch { continuation.resume(returning: .failure(error)) }
            }
        }
        return try result.get()
    }
}

func fileOptions(_ path: String, name: String, readOnly: Bool? = nil, autoReadOnly: Bool? = nil, direct: Bool? = nil) -> BlockdevOptions {
    BlockdevOptions(
        .file(BlockdevOptionsFile(filename: path)), nodeName: name, cache: direct.map { BlockdevCacheOptions(direct: $0) }, readOnly: readOnly,
        autoReadOnly: autoReadOnly)
}

func rawOptions(over name: String, name own: String, offset: Int? = nil, size: Int? = nil) -> BlockdevOptions {
    BlockdevOptions(.raw(BlockdevOptionsRaw(file: .reference(name), offset: offset, size: size)), nodeName: own)
}

let reading = PermissionGrant(used: .consistentRead, shared: .all)
let writing = PermissionGrant(used: [.consistentRead, .write], shared: .all)
let writingAlone = PermissionGrant(used: [.consistentRead, .write], shared: [.consistentRead, .writeUnchanged])

/// The text of the error that `body` throws, or nil if it throws none.
func message(_ body: () async throws -> Void) async -> String? {
    do {
        try await body()
        return nil
    } catch let error as BlockError {
        return error.description
    } catch { return "\(error)" }
}

let inMemory: [any BlockDriver.Type] = [MemoryDriver.self, OverlayDriver.self, RawDriver.self]
