import BasicDrivers
import BlockGraph
import Foundation
import IOCore
import QCOW2
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// Copies that the kernel makes, between images of either format.
@Suite("copying ranges between images")
struct CopyRangeTests {
    enum Kind: String, CaseIterable, Sendable { case raw, qcow2, overlay }

    static let clusterSize = 4096, size = 300 * 1024

    /// Makes an image full of zeroes and returns the options that open it.
    private static func make(_ kind: Kind, _ name: String, _ scratch: Scratch) throws -> BlockdevOptions {
        let path = scratch.file(name)
        switch kind {
        case .raw:
            try run("qemu-img", ["create", "-q", "-f", "raw", path, "\(size)"])
            var file = BlockdevOptions(.file(BlockdevOptionsFile(filename: path)))
            file.discard = .unmap
            var options = BlockdevOptions(.raw(BlockdevOptionsRaw(file: .definition(file))), nodeName: name)
            options.discard = .unmap
            return options
        case .qcow2:
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize)", path, "\(size)"])
        case .overlay:
            // The backing file ends in the middle of a cluster of the overlay.
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path + ".base", "\(size / 2 + 512)"])
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize)", "-b", path + ".base", "-F", "qcow2", path, "\(size)"])
        }
        return imageOptions(path, name: name)
    }

    private final class Ended: Sendable {
        private let value = Atomic<Bool>(false)
        var isSet: Bool { value.load(ordering: .relaxed) }
        func set() { value.store(true, ordering: .relaxed) }
    }

    private static func open(_ options: BlockdevOptions, _ graph: BlockGraph) async throws -> BlockBackend {
        try await graph.add(options)
        return try await graph.makeBackend(
            named: options.nodeName ?? "", on: options.nodeName ?? "", PermissionGrant(used: [.consistentRead, .write], shared: .all))
    }

    @Test("random copies, writes, zeroes and discards on two images leave what a model says, while both are drained again and again", arguments: Kind.allCases, Kind.allCases)
    func model(from: Kind, to: Kind) async throws {
        let scratch = try Scratch()
        let definitions = (try Self.make(from, "first", scratch), try Self.make(to, "second", scratch))
        let copies = try await onContext { context in
            let graph = BlockGraph(context: context, drivers: DriverRegistry(testDrivers))
            let disks = [try await Self.open(definitions.0, graph), try await Self.open(definitions.1, graph)]
            var models = [1, 2].map { DiskModel(size: Self.size, clusterSize: Self.clusterSize, seed: $0) }
            let isOver = Ended()
            return try await withThrowingTaskGroup(of: Void.self) { group in
                group.addTask {
                    while !isOver.isSet {
                        try await graph.withDrained(["second", "first"]) { () async throws(BlockError) in }
                        await Task.yield()
                    }
                }
                var copies = (asked: 0, done: 0)
                for _ in 0..<400 {
                    let (source, target) = Bool.random(using: &models[0].random) ? (0, 1) : (1, 0)
                    if Int.random(in: 0..<3, using: &models[0].random) > 0 {
                        _ = try await models[target].step(disks[target])
                        continue
                    }
                    let range = models[0].range()
                    let start = Int.random(in: 0...Self.size - range.count, using: &models[0].random)
                        .roundedDown(to: range.lowerBound.isMultiple(of: Self.clusterSize) ? Self.clusterSize : 1)
                    let bytes = Array(models[source].bytes[range])
                    let flags: RequestFlags = Bool.random(using: &models[0].random) ? .mayUnmap : .forceUnitAccess
                    copies.asked += 1
                    let outcome = try await disks[source].copyRange(
                        GuestRange(GuestOffset(range.lowerBound), byteCount: range.count), to: disks[target], at: GuestOffset(start), flags: flags)
                    if outcome == .done { copies.done += 1 } else { try await disks[target].writeBytes(bytes, at: start) }
                    models[target].bytes.replaceSubrange(start..<start + range.count, with: bytes)
                }
                isOver.set()
                try await group.waitForAll()
                for (disk, model) in zip(disks, models) {
                    #expect(firstDifference(try await disk.readBytes(at: 0, Self.size), model.bytes) == nil)
                    await graph.release(disk)
                }
                try await graph.closeAll()
                return copies
            }
        }
        #expect(copies.done > copies.asked / 4, "\(copies.done) of \(copies.asked) were copied by the kernel")
        for (kind, name) in [(from, "first"), (to, "second")] where kind != .raw { try run("qemu-img", ["check", "-q", scratch.file(name)]) }
    }

    @Test("whole clusters of data are always copied by the kernel", arguments: Kind.allCases, Kind.allCases)
    func wholeClusters(from: Kind, to: Kind) async throws {
        let scratch = try Scratch()
        let definitions = (try Self.make(from, "first", scratch), try Self.make(to, "second", scratch))
        try await onContext { context in
            let graph = BlockGraph(context: context, drivers: DriverRegistry(testDrivers))
            let (first, second) = (try await Self.open(definitions.0, graph), try await Self.open(definitions.1, graph))
            try await first.writeBytes([UInt8](repeating: 7, count: 65536), at: 8192)
            #expect(try await first.copyRange(GuestRange(GuestOffset(4096), byteCount: 131_072), to: second, at: GuestOffset(16384)) == .done)
            let expected = [UInt8](repeating: 0, count: 4096) + [UInt8](repeating: 7, count: 65536) + [UInt8](repeating: 0, count: 61440)
            #expect(try await second.readBytes(at: 16384, 131_072) == expected)
            // Over what is there already, and within one image.
            #expect(try await second.copyRange(GuestRange(GuestOffset(20480), byteCount: 4096), to: second, at: GuestOffset(0)) == .done)
            #expect(try await second.readBytes(at: 0, 4096) == [UInt8](repeating: 7, count: 4096))
            for disk in [first, second] { await graph.release(disk) }
            try await graph.closeAll()
        }
    }

    @Test("what cannot be copied is said to be unsupported and left alone; what must not be is refused")
    func refusals() async throws {
        let scratch = try Scratch()
        let source = try Self.make(.qcow2, "first", scratch)
        let target = try Self.make(.raw, "second", scratch)
        try await onContext { context in
            let graph = BlockGraph(context: context, drivers: DriverRegistry(testDrivers))
            let (first, second) = (try await Self.open(source, graph), try await Self.open(target, graph))
            let recorder = Recorder(disk: [UInt8](repeating: 1, count: Self.size))
            defer { recorder.forget() }
            let memory = BlockdevOptions(.nullCo(BlockdevOptionsNull(size: recorder.number)))
            let null = try await Self.open(BlockdevOptions(.raw(BlockdevOptionsRaw(file: .definition(memory))), nodeName: "null"), graph)
            // Somebody wants to see the bytes.
            try run("qemu-img", ["create", "-q", "-f", "raw", scratch.file("third"), "65536"])
            var watchful = BlockdevOptions(.file(BlockdevOptionsFile(filename: scratch.file("third"))), nodeName: "third")
            watchful.detectZeroes = .on
            let looking = try await Self.open(watchful, graph)
            #expect(try await second.copyRange(GuestRange(GuestOffset(0), byteCount: 4096), to: looking, at: GuestOffset(0)) == .unsupported)
            let data = [UInt8](repeating: 5, count: 4096)
            try await first.writeBytes(data, at: 0)
            for (from, to) in [(first, null), (null, second)] {
                #expect(try await from.copyRange(GuestRange(GuestOffset(0), byteCount: 4096), to: to, at: GuestOffset(0)) == .unsupported)
            }
            try await first.writeBytes(data, at: 0, flags: .compressed)
            #expect(try await first.copyRange(GuestRange(GuestOffset(0), byteCount: 4096), to: second, at: GuestOffset(0)) == .unsupported)
            #expect(try await first.copyRange(GuestRange(GuestOffset(4096), byteCount: 4096), to: second, at: GuestOffset(0), flags: .compressed) == .unsupported)
            #expect(try await second.readBytes(at: 0, 4096) == [UInt8](repeating: 0, count: 4096))
            // A part of a cluster that is not there yet.
            try await second.writeBytes(data, at: 0)
            #expect(try await second.copyRange(GuestRange(GuestOffset(0), byteCount: 512), to: first, at: GuestOffset(0)) == .unsupported)
            #expect(try await first.readBytes(at: 0, 4096) == data)

            await #expect(throws: BlockError.self) { try await first.copyRange(GuestRange(GuestOffset(Self.size), byteCount: 1), to: second, at: GuestOffset(0)) }
            await #expect(throws: BlockError.self) { try await first.copyRange(GuestRange(GuestOffset(0), byteCount: 4096), to: second, at: GuestOffset(Self.size - 512)) }
            await #expect(throws: BlockError.self) { try await first.copyRange(GuestRange(GuestOffset(0), byteCount: .max), to: second, at: GuestOffset(0)) }
            let reader = try await graph.makeBackend(named: "reader", on: "second", PermissionGrant(used: .consistentRead, shared: .all))
            await #expect(throws: BlockError.self) { try await first.copyRange(GuestRange(GuestOffset(0), byteCount: 4096), to: reader, at: GuestOffset(0)) }
            for disk in [first, second, null, looking, reader] { await graph.release(disk) }
            try await graph.closeAll()
        }
    }
}
