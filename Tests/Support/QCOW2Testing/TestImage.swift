import BasicDrivers
package import BlockGraph
import Foundation
package import IOCore
package import ManagedObjects
import QCOW2
package import StorageSchema
import StrataBase
import StrataTesting

/// Runs `body` on an I/O context of its own thread, as requests of the product run.
package func onContext<T: Sendable>(_ body: @escaping @Sendable (IOContext) async throws -> T) async throws -> T {
    let context = try IOContext.startThread(name: "test")
    let result: Result<T, any Error> = await withCheckedContinuation { continuation in
        context.spawn {
            do { continuation.resume(returning: .success(try await body(context))) } catch { continuation.resume(returning: .failure(error)) }
        }
    }
    context.stop()
    return try result.get()
}

/// A folder for the files of one test, on tmpfs where there is one; removed with the last reference.
package final class Scratch: Sendable {
    package let path: String

    package init() throws {
        let base = FileManager.default.isWritableFile(atPath: "/dev/shm") ? "/dev/shm" : NSTemporaryDirectory()
        path = base + "/strata-qcow2-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    package func file(_ name: String) -> String { path + "/" + name }
}

package struct ToolFailure: Error, CustomStringConvertible {
    package let description: String
    package init(description: String) { self.description = description }
}

/// Runs an independent program and returns what it printed.
@discardableResult
package func run(_ tool: String, _ arguments: [String], allowedStatus: Set<Int32> = [0]) throws -> String {
    try mustRun(tool, arguments, joinsErrors: true, allowedStatus: allowedStatus).text
}

/// Options for an image in a host file.
package func imageOptions(_ path: String, readOnly: Bool = false, discard: Bool = true, l2CacheSize: Int? = nil, refcountCacheSize: Int? = nil, name: String = "disk") -> BlockdevOptions {
    var file = BlockdevOptions(.file(BlockdevOptionsFile(filename: path)))
    file.discard = .unmap
    var options = BlockdevOptions(
        .qcow2(BlockdevOptionsQcow2(file: .definition(file), l2CacheSize: l2CacheSize, refcountCacheSize: refcountCacheSize)))
    options.nodeName = name
    options.readOnly = readOnly
    options.discard = discard ? .unmap : .ignore
    return options
}

package let testDrivers: [any BlockDriver.Type] = [FileDriver.self, RawDriver.self, NullDriver.self, QCOW2Driver.self, RecordingDriver.self]

/// Opens an image, hands a backend on it to `body`, and closes everything.
package func withImage<T: Sendable>(
    _ options: BlockdevOptions, _ context: IOContext, objects: ObjectRegistry = ObjectRegistry(), _ body: @Sendable (BlockBackend) async throws -> T
) async throws -> T {
    try await withGraph(options, context, objects: objects) { _, backend in try await body(backend) }
}

/// The same, for a body that changes the graph.
package func withGraph<T: Sendable>(
    _ options: BlockdevOptions, _ context: IOContext, objects: ObjectRegistry = ObjectRegistry(), _ body: @Sendable (BlockGraph, BlockBackend) async throws -> T
) async throws -> T {
    let graph = BlockGraph(context: context, drivers: DriverRegistry(testDrivers), objects: objects)
    try await graph.add(options)
    var used: BlockPermissions = [.consistentRead]
    if options.readOnly != true { used.formUnion([.write, .resize]) }
    let backend = try await graph.makeBackend(named: "test", on: options.nodeName ?? "", PermissionGrant(used: used, shared: .all))
    let result: Result<T, any Error>
    do { result = .success(try await body(graph, backend)) } catch { result = .failure(error) }
    await graph.release(backend)
    try await graph.closeAll()
    return try result.get()
}

package func amend(_ disk: BlockBackend, _ change: (inout ImageAmendment) -> Void) async throws {
    var amendment = ImageAmendment()
    change(&amendment)
    guard let amending = disk.node.driver as? any Amending else { throw ToolFailure(description: "cannot be amended") }
    try await amending.amend(amendment) { done, total in precondition(done <= total && done >= 0) }
}

/// When the snapshot of that number was taken.
package func moment(_ number: Int) -> SnapshotMoment {
    var moment = SnapshotMoment(WallClock(seconds: 1_000_000_000 + number, nanoseconds: 7))
    moment.vmClockNanoseconds = number << 36
    return moment
}

extension BlockBackend {
    package func readBytes(at offset: Int, _ count: Int) async throws -> [UInt8] {
        let buffer = IOBuffer(byteCount: count)
        buffer.vector.fill(with: 0xdb)
        if !tryRead(buffer.vector, at: GuestOffset(offset)) { try await read(buffer.vector, at: GuestOffset(offset)) }
        return bytes(of: buffer)
    }

    package func writeBytes(_ bytes: [UInt8], at offset: Int, flags: RequestFlags = []) async throws {
        let buffer = IOBuffer(byteCount: bytes.count)
        buffer.vector.copyIn(bytes.span.bytes, at: 0)
        if flags.isEmpty, tryWrite(buffer.vector, at: GuestOffset(offset)) { return }
        try await write(buffer.vector, at: GuestOffset(offset), flags: flags)
        withExtendedLifetime(buffer) {}
    }
}

package func bytes(of buffer: IOBuffer) -> [UInt8] {
    var result = [UInt8](repeating: 0, count: buffer.byteCount)
    result.withUnsafeMutableBytes { raw in
        var span = raw.mutableBytes
        buffer.vector.copyOut(at: 0, into: &span)
    }
    return result
}
