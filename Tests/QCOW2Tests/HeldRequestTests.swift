import BlockGraph
import DriverTesting
import Foundation
import IOCore
import QCOW2
import QCOW2Testing
import StorageSchema
import StrataBase
import Testing

/// What goes on while requests wait at the disk below.
@Suite("qcow2 while requests are held up at its file")
struct HeldRequestTests {
    static let clusterSize = 4096

    /// An image whose first four clusters hold data, over a disk that can hold requests up.
    private static func withImage(_ body: @escaping @Sendable (BlockBackend, SimulatedDisk, [IOContext]) async throws -> Void) async throws {
        try await onContext { context in
            let disk = SimulatedDisk(byteCount: 0)
            defer { disk.retire() }
            let graph = BlockGraph(context: context, drivers: DriverRegistry([SimulatedDiskDriver.self, QCOW2Driver.self]))
            try await graph.add(disk.options(named: "creation"))
            let creation = try await graph.makeBackend(named: "create", on: "creation", PermissionGrant(used: .all, shared: .all))
            try await QCOW2Driver.create(
                BlockdevCreateOptionsQcow2(file: .reference("creation"), size: 64 * clusterSize, clusterSize: clusterSize), in: creation)
            await graph.release(creation)
            try await graph.remove(nodeNamed: "creation")
            try await graph.add(BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(disk.options()), backing: .null)), nodeName: "disk"))
            let backend = try await graph.makeBackend(named: "test", on: "disk", PermissionGrant(used: [.consistentRead, .write], shared: .all))
            for cluster in 0..<4 { try await backend.writeBytes([UInt8](repeating: 7, count: clusterSize), at: cluster * clusterSize) }
            try await backend.flush()
            disk.forgetRequests()
            let threads = try [context, IOContext.startThread(name: "a"), IOContext.startThread(name: "b")]
            defer { for thread in threads.dropFirst() { thread.stop() } }
            try await body(backend, disk, threads)
            try await backend.flush()
            let report = try await backend.node.checking?.check(repair: [])
            #expect(report?.corruptions == 0 && report?.leaks == 0, "\(String(describing: report))")
            #expect(disk.violations == [])
            await graph.release(backend)
            try await graph.closeAll()
        }
    }

    private static func waitForWrites(_ count: Int, _ disk: SimulatedDisk) async {
        while disk.requests.count(where: { $0.operation == .write }) < count { await Task.yield() }
    }

    @Test("reads and writes of other clusters, new ones too, go to the disk while a write waits there", .timeLimit(.minutes(1)))
    func othersGoOn() async throws {
        try await Self.withImage { backend, disk, threads in
            disk.hold([.write])
            let data = [UInt8](repeating: 9, count: Self.clusterSize)
            try await withThrowingTaskGroup(of: Void.self) { group in
                // Each on a thread of its own: a new cluster, one in place, a part of a new one, another whole new one.
                for (number, start) in [10 * Self.clusterSize, Self.clusterSize, 20 * Self.clusterSize + 512, 30 * Self.clusterSize].enumerated() {
                    let bytes = number == 2 ? Array(data.prefix(512)) : data
                    group.addTask(executorPreference: threads[number % threads.count]) { try await backend.writeBytes(bytes, at: start) }
                    await Self.waitForWrites(number + 1, disk)
                    // None of them has come back from the disk.
                    #expect(try await backend.readBytes(at: 2 * Self.clusterSize, 512) == [UInt8](repeating: 7, count: 512))
                }
                disk.letGo()
                try await group.waitForAll()
            }
            for cluster in [10, 1, 30] { #expect(try await backend.readBytes(at: cluster * Self.clusterSize, Self.clusterSize) == data) }
            #expect(try await backend.readBytes(at: 20 * Self.clusterSize, 1536) == [UInt8](repeating: 0, count: 512) + Array(data.prefix(512)) + [UInt8](repeating: 0, count: 512))
        }
    }

    @Test("writes that come to one empty cluster at the same time, from several threads, share one allocation", .timeLimit(.minutes(1)), arguments: [4, 8])
    func oneAllocation(writers: Int) async throws {
        try await Self.withImage { backend, disk, threads in
            let piece = Self.clusterSize / writers
            disk.hold([.write])
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<writers {
                    group.addTask(executorPreference: threads[number % threads.count]) {
                        try await backend.writeBytes([UInt8](repeating: UInt8(number + 1), count: piece), at: 10 * Self.clusterSize + number * piece)
                    }
                }
                await Self.waitForWrites(1, disk)
                disk.letGo()
                try await group.waitForAll()
            }
            // Tables are not written before the flush.
            let used = Set(disk.requests.filter { $0.operation == .write }.map { $0.range.start.rawValue / Self.clusterSize })
            #expect(used.count == 1, "clusters \(used.sorted()) were written")
            let expected = (0..<writers).flatMap { [UInt8](repeating: UInt8($0 + 1), count: piece) }
            #expect(try await backend.readBytes(at: 10 * Self.clusterSize, Self.clusterSize) == expected)
        }
    }
}
