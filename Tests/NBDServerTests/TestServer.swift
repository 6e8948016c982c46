import BasicDrivers
import BlockExports
import BlockGraph
import Foundation
import IOCore
import NBDProtocol
import NBDServer
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization

/// A server in this process on a unix socket in a directory of its own, on an I/O context with a thread of its own.
final class TestServer: Sendable {
    let directory: String
    let context: IOContext
    let registry: BlockExportRegistry
    let graph: BlockGraph
    let extraContexts: [IOContext]
    let server: NBDServer
    let deleted: Mutex<[String]>.Box

    var socketPath: String { directory + "/socket" }
    var uri: String { "nbd+unix:///?socket=" + socketPath }

    /// - Parameters:
    ///   - nodes: added to the graph in this order. "DIR" in a file name stands for the server's directory.
    ///   - exports: offered in this order.
    ///   - threads: I/O threads of every export; 0 serves on the server's own.
    init(
        maximumConnections: Int? = 100, handshakeLimit: Duration? = .seconds(10), threads: Int = 0, drivers: [any BlockDriver.Type] = standardDrivers,
        prepare: @Sendable (String) throws -> Void = { _ in }, nodes: @Sendable (String) -> [BlockdevOptions], exports: [BlockExportOptions]
    ) async throws {
        directory = "/dev/shm/strata-nbd-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        context = try IOContext.startThread(name: "nbd test")
        let deleted = Mutex<[String]>.Box([])
        self.deleted = deleted
        registry = BlockExportRegistry(onDeleted: { id in deleted.value.withLock { $0.append(id) } })
        server = NBDServer(
            .init(addresses: [.unix(path: directory + "/socket")], handshakeLimit: handshakeLimit, maximumConnections: maximumConnections),
            context: context, registry: registry)
        graph = BlockGraph(context: context, drivers: DriverRegistry(drivers))
        extraContexts = try (0..<threads).map { try IOContext.startThread(name: "nbd test \($0)") }
        try prepare(directory)
        try await server.start()
        for node in nodes(directory) { try await graph.add(node) }
        for export in exports { try await server.addExport(export, graph: graph, contexts: extraContexts.isEmpty ? [context] : extraContexts) }
    }

    static let standardDrivers: [any BlockDriver.Type] = [FileDriver.self, RawDriver.self, NullDriver.self]

    /// A raw node over a file node.
    static func raw(_ path: String, named name: String) -> BlockdevOptions {
        BlockdevOptions(
            .raw(BlockdevOptionsRaw(file: .definition(BlockdevOptions(.file(BlockdevOptionsFile(filename: path)), nodeName: name + "-file")))),
            nodeName: name)
    }

    static func export(_ node: String, name: String? = nil, id: String? = nil, description: String? = nil, writable: Bool = true) -> BlockExportOptions {
        BlockExportOptions(.nbd(BlockExportOptionsNbd(name: name, description: description)), id: id ?? "export-" + node, nodeName: node, writable: writable)
    }

    /// A server with one writable export named "disk": a raw file of `byteCount` bytes in memory, `DIR/disk.img`.
    static func withRawDisk(byteCount: Int, writable: Bool = true, threads: Int = 0, maximumConnections: Int? = 100, handshakeLimit: Duration? = .seconds(10)) async throws -> TestServer {
        try await TestServer(
            maximumConnections: maximumConnections, handshakeLimit: handshakeLimit, threads: threads,
            prepare: { directory in
                _ = FileManager.default.createFile(atPath: directory + "/disk.img", contents: nil)
                truncate(directory + "/disk.img", byteCount)
            },
            nodes: { [raw($0 + "/disk.img", named: "disk")] }, exports: [export("disk", writable: writable)])
    }

    var diskPath: String { directory + "/disk.img" }

    func stop() async {
        await server.stop()
        do { try await graph.closeAll() } catch { print("closing the graph: \(error)") }
        for context in [context] + extraContexts {
            context.stop()
            await BlockingPool.run { context.join() }
        }
        try? FileManager.default.removeItem(atPath: directory)
    }

    /// Runs `body`, which may block, off the threads of the server and of Swift's pool.
    func client<R: Sendable>(_ body: @escaping @Sendable (String) throws -> R) async throws -> R {
        let path = socketPath
        return try await BlockingPool.run { Result { try body(path) } }.get()
    }
}

extension Mutex where Value: Sendable {
    /// A mutex that can be captured.
    final class Box: Sendable {
        let value: Mutex<Value>
        init(_ initial: Value) { value = Mutex(initial) }
    }
}

/// What an external program said.
struct ProgramResult: Sendable {
    var status: Int32
    var output: String
    var errors: String
}

/// Runs a program to its end. Blocks.
func run(_ program: String, _ arguments: [String]) throws -> ProgramResult {
    let finished = try StrataTesting.run(program, arguments)
    let status: Int32 = if case .exited(let status) = finished.ending { status } else { -1 }
    return ProgramResult(status: status, output: finished.text, errors: finished.errorText)
}
