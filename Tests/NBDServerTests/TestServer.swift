import BlockExports
import BlockGraph
import Foundation
import IOCore
import NBDProtocol
import NBDServer
import StrataBase
import Synchronization

/// A server in this process on a unix socket in a directory of its own, on an I/O context with a thread of its own.
final class TestServer: Sendable {
    let directory: String
    let context: IOContext
    let registry: BlockExportRegistry
    let server: NBDServer
    let deleted: Mutex<[String]>.Box

    var socketPath: String { directory + "/socket" }
    var uri: String { "nbd+unix:///?socket=" + socketPath }

    /// - Parameter makeExports: runs on the server's context.
    init(
        maximumConnections: Int? = 100, handshakeLimit: Duration? = .seconds(10),
        _ makeExports: @escaping @Sendable (TestServer) async throws -> [NBDExport]
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
        try await server.start()
        for export in try await makeExports(self) { try await server.offer(export) }
    }

    func stop() async {
        await server.stop()
        context.stop()
        await BlockingPool.run { self.context.join() }
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
func run(_ program: String, _ arguments: [String], input: String? = nil) throws -> ProgramResult {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = ["timeout", "60", program] + arguments
    let output = Pipe(), errors = Pipe()
    process.standardOutput = output
    process.standardError = errors
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let errorText = Mutex<Data>.Box(Data())
    let reader = Thread { errorText.value.withLock { $0 = errors.fileHandleForReading.readDataToEndOfFile() } }
    reader.start()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    while !reader.isFinished { usleep(100) }
    return ProgramResult(status: process.terminationStatus, output: text, errors: String(decoding: errorText.value.withLock { $0 }, as: UTF8.self))
}

/// Whether a program is installed; tests of interoperation name it when they are left out.
func isInstalled(_ program: String) -> Bool {
    ["/usr/bin/", "/usr/local/bin/", "/bin/"].contains { FileManager.default.isExecutableFile(atPath: $0 + program) }
}
