import BasicDrivers
import BlockGraph
import Foundation
import IOCore
import NBDClient
import StorageSchema
import StrataBase
import StrataTesting

/// A graph with an nbd node in it, on an I/O thread of its own.
final class ClientBench: Sendable {
    let context: IOContext
    let graph: BlockGraph

    init() throws {
        context = try IOContext.startThread(name: "nbd client")
        graph = BlockGraph(context: context, drivers: DriverRegistry([NBDDriver.self, RawDriver.self]))
    }

    func stop() async {
        do { try await graph.closeAll() } catch { print("closing: \(error)") }
        context.stop()
        await BlockingPool.run { [context] in context.join() }
    }

    static func options(
        _ path: String, export: String? = nil, readOnly: Bool? = nil, autoReadOnly: Bool? = nil, reconnectDelay: UInt32? = nil, openTimeout: UInt32? = nil,
        connections: UInt32? = nil, dirtyBitmap: String? = nil
    ) -> BlockdevOptions {
        BlockdevOptions(
            .nbd(BlockdevOptionsNbd(
                server: SocketAddress(.unix(UnixSocketAddress(path: path))), export: export, xDirtyBitmap: dirtyBitmap, reconnectDelay: reconnectDelay,
                openTimeout: openTimeout, multiConn: connections)),
            nodeName: "disk", discard: .unmap, readOnly: readOnly, autoReadOnly: autoReadOnly)
    }

    /// Adds the node and takes hold of it. Runs on the context, as exports and tools do.
    func open(_ options: BlockdevOptions, writable: Bool = true) async throws -> BlockBackend {
        try await on { graph in
            try await graph.add(options)
            let needed: BlockPermissions = writable ? [.consistentRead, .write] : .consistentRead
            do {
                return try await graph.makeBackend(named: "test", on: "disk", PermissionGrant(used: needed, shared: .all))
            } catch {
                try await graph.remove(nodeNamed: "disk")
                throw error
            }
        }
    }

    func on<R: Sendable>(_ body: @escaping @Sendable (BlockGraph) async throws -> R) async throws -> R {
        let result: Result<R, any Error> = await withCheckedContinuation { continuation in
            context.spawn { [graph] in
                do { continuation.resume(returning: .success(try await body(graph))) } catch { continuation.resume(returning: .failure(error)) }
            }
        }
        return try result.get()
    }

    func close(_ backend: BlockBackend) async throws {
        try await on { graph in
            await graph.release(backend)
            try await graph.remove(nodeNamed: "disk")
        }
    }
}

/// A server program that lives as long as this object.
final class ServerProgram: Sendable {
    let process: ChildProcess

    /// - Parameter socket: takes connections when the server is ready.
    init(_ program: String, _ arguments: [String], socket: String) throws {
        process = try ChildProcess(program, arguments)
        guard waitUntil({ UnixSocket(path: socket) != nil || !process.isRunning }), process.isRunning else {
            process.send(SIGKILL)
            throw HarnessError("\(program) does not serve: \(try process.outputSoFar())")
        }
    }

    func kill() throws {
        process.send(SIGKILL)
        _ = try process.wait()
    }

    deinit { process.send(SIGKILL) }
}

/// Debian's nbd-server with one file in the folder, `disk`, exported under that name.
final class NBDServerProgram: Sendable {
    let socket: String
    private let process: BackgroundServer

    /// - Parameter settings: further lines of its configuration.
    init(in folder: TemporaryFolder, byteCount: Int, settings: [String] = []) throws {
        socket = folder.path("nbd-server.sock")
        if !folder.contains("disk") { try folder.write([], to: "disk") }
        guard truncate(folder.path("disk"), off_t(byteCount)) == 0 else { throw HarnessError("cannot make a disk of \(byteCount) bytes") }
        let lines = ["[generic]", "unixsock = \(socket)", "allowlist = true"] + settings + ["[disk]", "exportname = \(folder.path("disk"))", "flush = true", "fua = true", "trim = true"]
        try folder.write((lines.joined(separator: "\n") + "\n").utf8, to: "nbd-server.conf")
        process = try BackgroundServer("nbd-server", ["-C", folder.path("nbd-server.conf"), "-p", folder.path("nbd-server.pid")], pidFile: folder.path("nbd-server.pid"))
        guard waitUntil({ UnixSocket(path: socket) != nil }) else { throw HarnessError("nbd-server does not serve") }
    }
}

/// An array of bytes that goes through the same operations as a disk, several at once where they do not overlap.
struct DiskModel {
    var bytes: [UInt8]
    var random: SeededGenerator

    init(byteCount: Int, seed: UInt64) {
        bytes = [UInt8](repeating: 0, count: byteCount)
        random = SeededGenerator(seed: seed)
    }

    /// Random operations, `width` of them at a time on stripes of their own.
    /// - Parameter plainOnly: reads and writes without flags.
    mutating func exercise(_ backend: BlockBackend, rounds: Int, width: Int = 8, plainOnly: Bool = false) async throws {
        let stripe = bytes.count / width
        for _ in 0..<rounds {
            var steps: [Step] = []
            for index in 0..<width {
                let offset = (index * stripe + Int.random(in: 0..<stripe - 1, using: &random))
                let room = (index + 1) * stripe - offset
                let count = Int.random(in: 1...min(room, 200_000), using: &random)
                let step: Step
                switch Int.random(in: 0..<8, using: &random) {
                case 0..<3:
                    let byte = UInt8.random(in: 1...255, using: &random)
                    step = .write(offset, count, byte, fua: !plainOnly && Bool.random(using: &random))
                    for at in offset..<offset + count { bytes[at] = byte }
                case 3 where !plainOnly:
                    step = .zero(offset, count, unmap: Bool.random(using: &random))
                    for at in offset..<offset + count { bytes[at] = 0 }
                case 4 where !plainOnly: step = .flush
                default: step = .read(offset, Array(bytes[offset..<offset + count]))
                }
                steps.append(step)
            }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for step in steps { group.addTask { try await step.run(backend) } }
                try await group.waitForAll()
            }
        }
    }

    enum Step: Sendable {
        case read(Int, [UInt8])
        case write(Int, Int, UInt8, fua: Bool)
        case zero(Int, Int, unmap: Bool)
        case flush

        func run(_ backend: BlockBackend) async throws {
            switch self {
            case .read(let offset, let expected):
                let buffer = IOBuffer(byteCount: expected.count)
                defer { withExtendedLifetime(buffer) {} }
                buffer.vector.fill(with: 0xEE)
                try await backend.read(buffer.vector, at: GuestOffset(offset))
                let same = buffer.withBytes { bytes in expected.indices.allSatisfy { bytes.unsafeLoadUnaligned(fromByteOffset: $0, as: UInt8.self) == expected[$0] } }
                guard same else { throw HarnessError("a read of \(expected.count) bytes at \(offset) got other bytes than were written") }
            case .write(let offset, let count, let byte, let fua):
                let buffer = IOBuffer(byteCount: count)
                defer { withExtendedLifetime(buffer) {} }
                buffer.vector.fill(with: byte)
                try await backend.write(buffer.vector, at: GuestOffset(offset), flags: fua ? .forceUnitAccess : [])
            case .zero(let offset, let count, let unmap):
                try await backend.writeZeroes(GuestRange(GuestOffset(offset), byteCount: count), flags: unmap ? .mayUnmap : [])
            case .flush: try await backend.flush()
            }
        }
    }
}
