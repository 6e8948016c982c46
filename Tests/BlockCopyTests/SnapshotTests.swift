import BlockCopy
import BlockGraph
import CopyFilters
import DriverTesting
import IOCore
import StorageSchema
import StrataBase
import Synchronization
import Testing

@Suite("copy-before-write and snapshot-access")
struct SnapshotTests {
    private static let size = 20 * 65536 + 4096

    private static func disks(_ seed: UInt64, suspends: Bool = false) -> (source: SimulatedDisk, target: SimulatedDisk, contents: [UInt8]) {
        var properties = SimulatedDisk.Properties(alignment: 512)
        (properties.suspends, properties.seed) = (suspends, seed)
        let (source, target) = (SimulatedDisk(byteCount: size, properties), SimulatedDisk(byteCount: size, properties))
        let contents = stripedContents(size, seed: seed)
        source.setContents(contents, holes: seed % 2 == 0)
        target.setContents([UInt8](repeating: 0xee, count: size))
        return (source, target, contents)
    }

    private static func filter(
        _ name: String = "cbw", bitmap: BlockDirtyBitmap? = nil, onError: OnCbwError? = nil, timeout: UInt32? = nil
    ) -> BlockdevOptions {
        BlockdevOptions(
            .copyBeforeWrite(BlockdevOptionsCbw(file: .reference("source"), target: .reference("target"), bitmap: bitmap, onCbwError: onError, cbwTimeout: timeout)),
            nodeName: name, discard: .unmap)
    }

    private static let access = BlockdevOptions(.snapshotAccess(BlockdevOptionsGenericFormat(file: .reference("cbw"))), nodeName: "snapshot", discard: .unmap)

    private static func guest(_ bench: CopyBench, on node: String = "cbw") async throws -> BlockBackend {
        try await bench.graph.makeBackend(named: "guest", on: node, PermissionGrant(used: [.consistentRead, .write], shared: .all))
    }

    private static func reader(_ bench: CopyBench) async throws -> BlockBackend {
        try await bench.graph.makeBackend(named: "reader", on: "snapshot", PermissionGrant(used: [.consistentRead, .write], shared: .all))
    }

    /// Reads pieces of the snapshot and compares them with what the disk was.
    private static func compare(_ reader: BlockBackend, _ contents: [UInt8], seed: UInt64, rounds: Int) async throws {
        var random = SeededNumbers(seed: seed)
        for _ in 0..<rounds {
            let start = Int.random(in: 0..<contents.count, using: &random)
            let count = min(contents.count - start, [1, 512, 5000, 65536, 200_000].randomElement(using: &random) ?? 1)
            let found = try await reader.readArray(at: start, count)
            #expect(firstDifference(found, Array(contents[start..<start + count])) == nil, "\(count) bytes at \(start), seed \(seed)")
            let (status, _, _) = try await reader.blockStatus(of: GuestRange(GuestOffset(start), byteCount: count))
            if status.flags.contains(.zero) { #expect(contents[start..<start + status.byteCount].allSatisfy { $0 == 0 }, "zeroes at \(start)") }
            await Task.yield()
        }
    }

    @Test("guests on several threads write, zero and discard; the snapshot stays what the disk was", arguments: 1...12 as ClosedRange<UInt64>, [false, true])
    func staysTheSame(seed: UInt64, hasJob: Bool) async throws {
        let (source, target, contents) = Self.disks(seed, suspends: seed % 3 != 0)
        try await CopyBench.run(source, target) { bench in
            try await bench.graph.add(Self.filter())
            try await bench.graph.add(Self.access)
            let (guest, reader) = (try await Self.guest(bench), try await Self.reader(bench))
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                for index in 0..<3 {
                    tasks.addTask {
                        try await bench.onThread(index) {
                            var model = FlatModel(byteCount: Self.size, seed: seed &* 31 &+ UInt64(index))
                            // The model is shared out among nobody: only the requests matter here.
                            for _ in 0..<60 {
                                let range = model.range()
                                let guestRange = GuestRange(GuestOffset(range.lowerBound), byteCount: range.count)
                                switch Int.random(in: 0..<6, using: &model.random) {
                                case 0: try await guest.writeZeroes(guestRange, flags: .mayUnmap)
                                case 1: try await guest.discard(guestRange)
                                case 2: _ = try await guest.readArray(at: range.lowerBound, range.count)
                                default: try await guest.writeArray(model.data(range.count), at: range.lowerBound)
                                }
                            }
                        }
                    }
                    tasks.addTask { try await bench.onThread(index + 1) { try await Self.compare(reader, contents, seed: seed + UInt64(index), rounds: 40) } }
                }
                if hasJob {
                    let job = try await bench.graph.makeBackend(named: "job", on: "cbw", PermissionGrant(used: [], shared: .all))
                    let filter = try #require(await bench.graph.node(named: "cbw")?.driver as? CopyBeforeWriteDriver)
                    let watch = Watch()
                    try await filter.copier(gates: [job], delegate: watch).run(on: bench.contexts)
                    // A guest may still be at what it has taken.
                    #expect(filter.work.markedByteCount == 0)
                    try await tasks.waitForAll()
                    #expect(filter.work.openByteCount == 0)
                    await bench.graph.release(job)
                } else {
                    try await tasks.waitForAll()
                }
            }
            #expect(firstDifference(try await reader.readArray(at: 0, Self.size), contents) == nil)
            if hasJob { #expect(firstDifference(target.contents, contents) == nil) }
            await bench.graph.release(guest)
            await bench.graph.release(reader)
        }
        #expect(source.violations.isEmpty && target.violations.isEmpty, "\(source.violations) \(target.violations)")
    }

    @Test("the filter is put in under running writers, and keeps the disk of that moment", arguments: 1...6 as ClosedRange<UInt64>)
    func insertion(seed: UInt64) async throws {
        let (source, target, _) = Self.disks(seed, suspends: true)
        try await CopyBench.run(source, target) { bench in
            let guest = try await Self.guest(bench, on: "source")
            let isOver = Flag()
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                defer { isOver.set() }
                for index in 0..<2 {
                    tasks.addTask {
                        try await bench.onThread(index) {
                            var model = FlatModel(byteCount: Self.size, seed: seed &* 77 &+ UInt64(index))
                            while !isOver.isSet {
                                let range = model.range()
                                try await guest.writeArray(model.data(range.count), at: range.lowerBound)
                                await Task.yield()
                            }
                        }
                    }
                }
                await source.waitForArrivals(source.arrivalCount + 40)
                let drain = await bench.graph.beginDrain(of: ["source"])
                let contents = source.contents
                try await bench.graph.change { change async throws(BlockError) in
                    _ = try await change.insertFilter(Self.filter(), above: "source", isMonitorOwned: true)
                }
                await bench.graph.end(drain)
                #expect(guest.node.name == "cbw")
                try await bench.graph.add(Self.access)
                let reader = try await Self.reader(bench)
                await source.waitForArrivals(source.arrivalCount + 60)
                try await Self.compare(reader, contents, seed: seed, rounds: 30)
                isOver.set()
                try await tasks.waitForAll()
                #expect(firstDifference(try await reader.readArray(at: 0, Self.size), contents) == nil)
                await bench.graph.release(reader)
            }
            try await bench.graph.remove(nodeNamed: "snapshot")
            try await bench.graph.change { change throws(BlockError) in try change.removeFilter("cbw") }
            #expect(guest.node.name == "source")
            await bench.graph.release(guest)
        }
    }

    @Test("a write waits for readers who are reading the old data from the disk")
    func waitsForReaders() async throws {
        let (source, target, contents) = Self.disks(2)
        try await CopyBench.run(source, target) { bench in
            try await bench.graph.add(Self.filter())
            try await bench.graph.add(Self.access)
            let (guest, reader) = (try await Self.guest(bench), try await Self.reader(bench))
            source.hold([.read])
            let before = source.arrivalCount
            async let found = reader.readArray(at: 65536, 4096)
            await source.waitForArrivals(before + 1)
            // The copy of the cluster is not held: the target holds nothing, and the copy reads before we hold; so the copy waits with the reader.
            async let written: Void = guest.writeArray([UInt8](repeating: 0x77, count: 4096), at: 65536)
            for _ in 0..<50 { await Task.yield() }
            #expect(source.contents[65536..<69632].elementsEqual(contents[65536..<69632]))
            source.letGo()
            #expect(try await found == Array(contents[65536..<69632]))
            try await written
            #expect(source.contents[65536] == 0x77)
            #expect(try await reader.readArray(at: 65536, 4096) == Array(contents[65536..<69632]))
            await bench.graph.release(guest)
            await bench.graph.release(reader)
        }
    }

    @Test("only what the bitmap has is kept; the rest is written over without a copy and cannot be read")
    func bitmap() async throws {
        let (source, target, contents) = Self.disks(1)
        try await CopyBench.run(source, target) { bench in
            let bitmap = try await bench.graph.addBitmap(named: "wanted", to: "source", granularity: 65536)
            bitmap.set(GuestRange(GuestOffset(3 * 65536), byteCount: 2 * 65536))
            try await bench.graph.add(Self.filter(bitmap: BlockDirtyBitmap(node: "source", name: "wanted")))
            try await bench.graph.add(Self.access)
            let (guest, reader) = (try await Self.guest(bench), try await Self.reader(bench))
            target.forgetRequests()
            try await guest.writeArray([UInt8](repeating: 5, count: 2 * 65536), at: 0)
            #expect(target.requests.isEmpty)
            try await guest.writeArray([UInt8](repeating: 5, count: 65536), at: 5 * 65536 - 1000)
            #expect(target.requests.allSatisfy { (4 * 65536..<5 * 65536).contains($0.range.start.rawValue) } && !target.requests.isEmpty)
            #expect(try await reader.readArray(at: 3 * 65536, 2 * 65536) == Array(contents[3 * 65536..<5 * 65536]))
            for range in [0..<512, 5 * 65536 - 1..<5 * 65536 + 1] {
                let error = await #expect(throws: BlockError.self) { _ = try await reader.readArray(at: range.lowerBound, range.count) }
                #expect(error?.code == .accessDenied)
            }
            await bench.graph.release(guest)
            await bench.graph.release(reader)
        }
    }

    @Test("what is discarded from the snapshot is neither kept nor readable any more; parts of clusters stay")
    func discards() async throws {
        let (source, target, contents) = Self.disks(4)
        try await CopyBench.run(source, target) { bench in
            try await bench.graph.remove(nodeNamed: "target")
            try await bench.graph.add(target.options(named: "target"))
            try await bench.graph.add(Self.filter())
            try await bench.graph.add(Self.access)
            let (guest, reader) = (try await Self.guest(bench), try await Self.reader(bench))
            try await guest.writeArray([UInt8](repeating: 5, count: 65536), at: 65536)
            target.forgetRequests()
            try await reader.discard(GuestRange(GuestOffset(1000), byteCount: 4 * 65536))
            #expect(target.requests.map(\.operation) == [.discard])
            #expect(target.requests.first?.range == GuestRange(GuestOffset(65536), byteCount: 3 * 65536))
            let error = await #expect(throws: BlockError.self) { _ = try await reader.readArray(at: 65536, 512) }
            #expect(error?.code == .accessDenied)
            #expect(try await reader.readArray(at: 0, 65536) == Array(contents[..<65536]))
            target.forgetRequests()
            try await guest.writeArray([UInt8](repeating: 6, count: 3 * 65536), at: 65536)
            #expect(target.requests.isEmpty)
            // The last cluster is shorter than the others.
            try await reader.discard(GuestRange(GuestOffset(20 * 65536), byteCount: 4096))
            await #expect(throws: BlockError.self) { _ = try await reader.readArray(at: 20 * 65536, 512) }
            let refusal = await #expect(throws: BlockError.self) { try await reader.writeArray([1], at: 0) }
            #expect(refusal?.code == .unsupported)
            await bench.graph.release(guest)
            await bench.graph.release(reader)
        }
    }

    @Test("a failing copy breaks the guest's write or the snapshot, as wanted", arguments: [OnCbwError.breakGuestWrite, .breakSnapshot])
    func failures(_ action: OnCbwError) async throws {
        let (source, target, contents) = Self.disks(1)
        try await CopyBench.run(source, target) { bench in
            try await bench.graph.add(Self.filter(onError: action))
            try await bench.graph.add(Self.access)
            let (guest, reader) = (try await Self.guest(bench), try await Self.reader(bench))
            target.fail(.init([.write, .writeZeroes], .noSpace))
            let write: @Sendable () async throws -> Void = { try await guest.writeArray([UInt8](repeating: 5, count: 100), at: 70_000) }
            switch action {
            case .breakGuestWrite:
                let error = await #expect(throws: BlockError.self) { try await write() }
                #expect(error?.code == .noSpace)
                #expect(firstDifference(source.contents, contents) == nil)
                #expect(firstDifference(try await reader.readArray(at: 0, Self.size), contents) == nil)
                // Another attempt copies again.
                target.clearFaults()
                try await write()
                #expect(firstDifference(try await reader.readArray(at: 0, Self.size), contents) == nil)
            case .breakSnapshot:
                try await write()
                target.clearFaults()
                #expect(source.contents[70_000] == 5)
                let error = await #expect(throws: BlockError.self) { _ = try await reader.readArray(at: 0, 512) }
                #expect(error?.code == .accessDenied)
                target.forgetRequests()
                try await guest.writeArray([UInt8](repeating: 6, count: 100), at: 300_000)
                #expect(target.requests.isEmpty)
            }
            await bench.graph.release(guest)
            await bench.graph.release(reader)
        }
    }

    @Test("a copy that takes too long breaks what it is to break, goes on, and drained sections wait for it", arguments: [OnCbwError.breakGuestWrite, .breakSnapshot])
    func timeouts(_ action: OnCbwError) async throws {
        let (source, target, contents) = Self.disks(1)
        try await CopyBench.run(source, target) { bench in
            try await bench.graph.add(Self.filter(onError: action, timeout: 1))
            let guest = try await Self.guest(bench)
            target.hold([.write, .writeZeroes])
            do {
                try await guest.writeArray([UInt8](repeating: 5, count: 100), at: 70_000)
                #expect(action == .breakSnapshot)
            } catch let error as BlockError {
                #expect(action == .breakGuestWrite && error.code == .timedOut)
            }
            #expect(target.requestsInFlight > 0)
            // The drain is under way when the target lets go: it must not be over before the request is.
            async let drained: Int = bench.graph.withDrained(["target"]) { () async throws(BlockError) in target.requestsInFlight }
            for _ in 0..<20 { await Task.yield() }
            target.letGo()
            #expect(try await drained == 0)
            let filter = try #require(await bench.graph.node(named: "cbw")?.driver as? CopyBeforeWriteDriver)
            #expect(filter.work.openByteCount == filter.work.markedByteCount)
            #expect(Array(target.contents[65536..<131_072]) == Array(contents[65536..<131_072]))
            await bench.graph.release(guest)
        }
    }

    @Test("what cannot be is refused")
    func refusals() async throws {
        let (source, target, _) = Self.disks(1)
        try await CopyBench.run(source, target) { bench in
            func refusal(_ minimum: Int) async -> String? {
                let options = BlockdevOptionsCbw(file: .reference("source"), target: .reference("target"), minClusterSize: minimum)
                do throws(BlockError) {
                    try await bench.graph.add(BlockdevOptions(.copyBeforeWrite(options), nodeName: "cbw"))
                    return nil
                } catch { return error.description }
            }
            #expect(await refusal(5000) == "Cannot create block-copy-state: min-cluster-size needs to be a power of 2")
            #expect(await refusal(1 << 40)?.contains("min-cluster-size too large") == true)
            try await bench.graph.add(BlockdevOptions(.snapshotAccess(BlockdevOptionsGenericFormat(file: .reference("source"))), nodeName: "snapshot"))
            let reader = try await bench.graph.makeBackend(named: "reader", on: "snapshot", PermissionGrant(used: .consistentRead, shared: .all))
            let error = await #expect(throws: BlockError.self) { _ = try await reader.readArray(at: 0, 512) }
            #expect(error?.code == .unsupported)
            await bench.graph.release(reader)
            // Nobody else writes below a filter that somebody uses.
            try await bench.graph.add(Self.filter())
            let guest = try await Self.guest(bench)
            await #expect(throws: BlockError.self) { _ = try await Self.guest(bench, on: "source") }
            await bench.graph.release(guest)
        }
    }
}

private final class Flag: Sendable {
    private let value = Atomic<Bool>(false)
    var isSet: Bool { value.load(ordering: .relaxed) }
    func set() { value.store(true, ordering: .relaxed) }
}
