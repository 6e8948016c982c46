import BlockFilters
import BlockGraph
import DriverTesting
import Foundation
import IOCore
import ManagedObjects
import QCOW2
import StorageSchema
import StrataBase
import Synchronization
import Testing

@Suite("filters that come and go under load")
struct FilterLoadTests {
    enum Filter: String, CaseIterable, Sendable, CustomTestStringConvertible {
        case throttle, copyOnRead, compress, preallocate, blkdebug
        var testDescription: String { rawValue }

        func options(over node: String) -> BlockdevOptions {
            switch self {
            case .throttle: BlockdevOptions(.throttle(BlockdevOptionsThrottle(throttleGroup: "group", file: .reference(node))), nodeName: "filter")
            case .copyOnRead: BlockdevOptions(.copyOnRead(BlockdevOptionsCor(file: .reference(node))), nodeName: "filter")
            case .compress: BlockdevOptions(.compress(BlockdevOptionsGenericFormat(file: .reference(node))), nodeName: "filter")
            case .preallocate:
                BlockdevOptions(.preallocate(BlockdevOptionsPreallocate(file: .reference(node), preallocAlign: 4096, preallocSize: 65536)), nodeName: "filter")
            case .blkdebug: BlockdevOptions(.blkdebug(BlockdevOptionsBlkdebug(image: .reference(node), align: 512)), nodeName: "filter", discard: .unmap)
            }
        }

        /// The nodes that it can lie on: an image, or the file of one.
        var places: [String] {
            switch self {
            case .throttle, .blkdebug, .compress: ["image", "disk"]
            case .copyOnRead: ["image"]
            case .preallocate: ["disk"]
            }
        }
    }

    struct Scenario: Sendable, CustomTestStringConvertible {
        let filter: Filter
        let place: String
        var testDescription: String { "\(filter) on the \(place)" }
        /// An image does not write its file compressed, so that the disk lies there alone.
        var hasImage: Bool { filter != .compress || place == "image" }
        static let all = Filter.allCases.flatMap { filter in filter.places.map { Scenario(filter: filter, place: $0) } }
    }

    private static let byteCount = 1 << 20

    /// `top` (raw) over `image` (qcow2 over a base with data) over `disk`; for compression without the image.
    private struct Stack: Sendable {
        let disk: SimulatedDisk
        let bottom: SimulatedDisk
        let history: OverlapHistory
        let hasImage: Bool

        static func disk(_ byteCount: Int, compressionUnit: Int? = nil) -> SimulatedDisk {
            var properties = SimulatedDisk.Properties(alignment: 512)
            properties.suspends = true
            properties.compressionUnit = compressionUnit
            return SimulatedDisk(byteCount: byteCount, properties)
        }

        private static func image(_ bench: FilterBench, on disk: SimulatedDisk, clusterSize: Int) async throws {
            try await bench.graph.add(disk.options(named: "creation"))
            let backend = try await bench.graph.makeBackend(named: "create", on: "creation", PermissionGrant(used: .all, shared: .all))
            try await QCOW2Driver.create(
                BlockdevCreateOptionsQcow2(file: .reference("creation"), size: byteCount, clusterSize: clusterSize), in: backend)
            await bench.graph.release(backend)
            try await bench.graph.remove(nodeNamed: "creation")
        }

        init(_ bench: FilterBench, hasImage: Bool) async throws {
            self.hasImage = hasImage
            history = OverlapHistory(byteCount: byteCount)
            disk = Self.disk(hasImage ? 0 : byteCount, compressionUnit: hasImage ? nil : 4096)
            bottom = Self.disk(0)
            guard hasImage else {
                try await bench.graph.add(disk.options(named: "disk"))
                try await bench.graph.add(Self.top(over: "disk"))
                return
            }
            try await Self.image(bench, on: bottom, clusterSize: 4096)
            try await Self.image(bench, on: disk, clusterSize: 16384)
            let base = BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .definition(bottom.options()), backing: .null)), nodeName: "base")
            try await bench.graph.add(base)
            let backend = try await bench.writer(on: "base")
            try await history.exercise(backend, seed: 1, rounds: 60)
            await bench.graph.release(backend)
            try await bench.graph.add(disk.options(named: "disk"))
            try await bench.graph.add(Self.imageOptions(over: "disk"))
            try await bench.graph.add(Self.top(over: "image"))
        }

        static func imageOptions(over node: String) -> BlockdevOptions {
            BlockdevOptions(.qcow2(BlockdevOptionsQcow2(file: .reference(node), backing: .reference("base"))), nodeName: "image", discard: .unmap)
        }

        static func top(over node: String) -> BlockdevOptions {
            BlockdevOptions(.raw(BlockdevOptionsRaw(file: .reference(node))), nodeName: "top", discard: .unmap)
        }

        /// The definition of the node above `place`, with another node in its place.
        func parent(of place: String, over node: String) -> BlockdevOptions {
            place == "disk" && hasImage ? Self.imageOptions(over: node) : Self.top(over: node)
        }
    }

    /// Runs `edits` while two threads make requests, and judges what they read.
    private static func underLoad(
        hasImage: Bool, _ edits: @escaping @Sendable (FilterBench, BlockBackend, SimulatedDisk, (String, String) -> BlockdevOptions) async throws -> Void
    ) async throws {
        try await FilterBench.run { bench in
            var limits = ThrottleLimits()
            limits.iopsTotal = 4000
            limits.bpsWrite = 50 << 20
            try bench.graph.objects.add(try ThrottleGroup(ThrottleGroupProperties(limits: limits)), id: "group")
            let stack = try await Stack(bench, hasImage: hasImage)
            let backend = try await bench.writer(on: "top")
            let isOver = AsyncCondition(false)
            let second = try IOContext.startThread(name: "second")
            try await withThrowingTaskGroup(of: Void.self) { group in
                for worker in 0..<4 as Range<UInt64> {
                    group.addTask {
                        try await Self.run(on: worker % 2 == 0 ? bench.context : second) {
                            var round: UInt64 = 0
                            while !isOver.withLock({ $0 }) {
                                try await stack.history.exercise(backend, seed: worker &* 1000 &+ round &+ 7, rounds: 2)
                                round += 1
                                await Task.yield()
                            }
                        }
                    }
                }
                do { try await edits(bench, backend, stack.disk, stack.parent) } catch {
                    isOver.update { $0 = true }
                    throw error
                }
                isOver.update { $0 = true }
                try await group.waitForAll()
            }
            try await stack.history.readAll(backend)
            #expect(stack.history.problems.isEmpty)
            second.stop()
            second.join()
            await bench.graph.release(backend)
            try await bench.graph.remove(nodeNamed: "top")
            if hasImage { try await bench.graph.remove(nodeNamed: "image") }
            #expect(stack.disk.violations.isEmpty)
            if hasImage {
                let path = bench.file("image")
                try Data(stack.disk.contents).write(to: URL(fileURLWithPath: path))
                try BlockFiltersTests.run("qemu-img", "check", "-f", "qcow2", path)
            }
            stack.disk.retire()
            stack.bottom.retire()
        }
    }

    private static func run(on context: IOContext, _ body: @escaping @Sendable () async throws -> Void) async throws {
        let result: Result<Void, any Error> = await withCheckedContinuation { continuation in
            context.spawn {
                do { continuation.resume(returning: .success(try await body())) } catch { continuation.resume(returning: .failure(error)) }
            }
        }
        try result.get()
    }

    /// Suspends until requests have gone on.
    private static func progress(_ disk: SimulatedDisk) async { await disk.waitForArrivals(disk.arrivalCount + 10) }

    @Test("a filter goes in above a node and out again, and nobody reads anything else", arguments: Scenario.all)
    func insertion(scenario: Scenario) async throws {
        try await Self.underLoad(hasImage: scenario.hasImage) { bench, _, disk, _ in
            for _ in 0..<4 {
                try await bench.graph.change { change async throws(BlockError) in
                    _ = try await change.insertFilter(scenario.filter.options(over: scenario.place), above: scenario.place, isMonitorOwned: true)
                }
                let users = await bench.graph.snapshot.nodes[scenario.place]?.parents.count
                #expect(users == 1, "everybody uses the filter")
                await Self.progress(disk)
                try await bench.graph.change { change async throws(BlockError) in try change.removeFilter("filter") }
                #expect(await bench.graph.node(named: "filter") == nil)
                await Self.progress(disk)
            }
        }
    }

    @Test("a node is reopened over a filter and back over what it filters", arguments: Scenario.all)
    func reopening(scenario: Scenario) async throws {
        try await Self.underLoad(hasImage: scenario.hasImage) { bench, _, disk, parent in
            for _ in 0..<4 {
                try await bench.graph.add(scenario.filter.options(over: scenario.place))
                try await bench.graph.reopen([parent(scenario.place, "filter")])
                await Self.progress(disk)
                // It is in use.
                #expect(try await failure { try await bench.graph.remove(nodeNamed: "filter") } != nil)
                try await bench.graph.reopen([parent(scenario.place, scenario.place)])
                await Self.progress(disk)
                try await bench.graph.remove(nodeNamed: "filter")
            }
        }
    }

    @Test("a filter that cannot lie there is refused, and the requests go on below as before")
    func refusal() async throws {
        try await Self.underLoad(hasImage: true) { bench, backend, disk, parent in
            let before = await bench.graph.allNodes.map(\.name)
            for _ in 0..<2 {
                let refusal = try await failure {
                    try await bench.graph.change { change async throws(BlockError) in
                        _ = try await change.insertFilter(Filter.compress.options(over: "disk"), above: "disk", isMonitorOwned: true)
                    }
                }
                #expect(refusal?.hasPrefix("Compression is not supported for underlying format: ") == true, "\(refusal ?? "")")
                #expect(await bench.graph.allNodes.map(\.name) == before)
                await Self.progress(disk)
            }
        }
    }
}
