import BasicDrivers
import BlockCopy
import BlockFilters
import BlockGraph
import CopyFilters
import DriverTesting
import IOCore
import JobCore
import QAPIRuntime
import QCOW2
import StorageSchema
import StrataBase
import Synchronization

/// A chain of qcow2 images on simulated disks whose requests overtake each other, guests on three I/O threads that write to its top, and jobs.
final class ChainBench: Sendable {
    static let clusterSize = 4096

    /// Of every image, in bytes.
    let size: Int
    let contexts: [IOContext]
    let graph: BlockGraph
    let jobs: JobRegistry
    private let disks = Mutex<[String: SimulatedDisk]>([:])
    let told = AsyncCondition<[String]>([])
    /// Counts everything that happens: events of jobs, requests of guests.
    let pulse = AsyncCondition(0)

    init(size: Int) throws {
        self.size = size
        // Some of what jobs copy is enough for threads of their own, some is not.
        CopyThreads.smallestShared = 64 << 10
        contexts = [try IOContext.startThread(name: "control"), try IOContext.startThread(name: "io-0"), try IOContext.startThread(name: "io-1"), try IOContext.startThread(name: "io-2")]
        graph = BlockGraph(
            context: contexts[0], drivers: DriverRegistry([SimulatedDiskDriver.self, RawDriver.self, QCOW2Driver.self, CopyOnReadDriver.self, CopyBeforeWriteDriver.self]))
        let (told, pulse) = (told, pulse)
        jobs = JobRegistry(graph: graph) { event in
            let data = event.json
            let line = "\(data["id"]?.string ?? data["device"]?.string ?? "") \(data["status"]?.string ?? type(of: event).eventName)"
            told.update { $0.append(line) }
            pulse.update { $0 += 1 }
        }
    }

    /// Suspends until something has happened that often.
    func waitForPulses(_ count: Int) async {
        let goal = pulse.withLock { $0 } + count
        await pulse.wait { $0 >= goal ? () : nil }
    }

    func wait(for line: String) async { await told.wait { $0.contains(line) ? () : nil } }

    func disk(_ name: String) -> SimulatedDisk? { disks.withLock { $0[name] } }

    /// Opens images over each other, the lowest first, each node named like its image; the disks below are called `NAME-disk`.
    func openChain(_ names: [String], seed: UInt64) async throws {
        for (index, name) in names.enumerated() { try await openImage(name, over: index > 0 ? names[index - 1] : nil, seed: seed &+ UInt64(index)) }
    }

    func openImage(_ name: String, over backing: String?, seed: UInt64) async throws {
        var properties = SimulatedDisk.Properties()
        // Some disks answer at once, as page caches do.
        properties.suspends = seed % 4 != 0
        properties.seed = seed
        let disk = SimulatedDisk(byteCount: 0, properties)
        disks.withLock { $0[name] = disk }
        let file = try await graph.add(disk.options(named: "\(name)-disk"))
        let maker = try await graph.makeBackend(named: "maker", on: file.name, PermissionGrant(used: [.consistentRead, .write, .resize], shared: []))
        try await QCOW2Driver.create(BlockdevCreateOptionsQcow2(file: .reference(""), size: size, clusterSize: Self.clusterSize), in: maker)
        await graph.release(maker)
        let options = BlockdevOptionsQcow2(file: .reference(file.name), backing: backing.map { .reference($0) } ?? .null)
        _ = try await graph.add(BlockdevOptions(.qcow2(options), nodeName: name))
    }

    /// Fills parts of an image through its node.
    func fill(_ name: String, _ contents: inout [UInt8], seed: UInt64) async throws {
        var random = SeededNumbers(seed: seed)
        let backend = try await graph.makeBackend(named: "filler", on: name, PermissionGrant(used: [.consistentRead, .write], shared: .all))
        for _ in 0..<12 {
            let count = Int.random(in: 1...60_000, using: &random)
            let start = Int.random(in: 0...(size - count), using: &random)
            let byte: UInt8 = Bool.random(using: &random) ? .random(in: 1...255, using: &random) : 0
            let bytes = [UInt8](repeating: byte, count: count)
            try await backend.writeArray(bytes, at: start)
            contents.replaceSubrange(start..<start + count, with: bytes)
        }
        await graph.release(backend)
    }

    /// What a reader of the node sees.
    func contents(of name: String) async throws -> [UInt8] {
        let backend = try await graph.makeBackend(named: "reader", on: name, PermissionGrant(used: .consistentRead, shared: .all))
        let bytes = try await backend.readArray(at: 0, size)
        await graph.release(backend)
        return bytes
    }

    /// Runs `body` on the control thread, and takes everything down.
    static func run(size: Int = 1 << 20, _ body: @escaping @Sendable (ChainBench) async throws -> Void) async throws {
        let bench = try ChainBench(size: size)
        let result: Result<Void, any Error> = await withCheckedContinuation { continuation in
            bench.contexts[0].spawn {
                var outcome: Result<Void, any Error> = .success(())
                do { try await body(bench) } catch { outcome = .failure(error) }
                await bench.jobs.cancelAll()
                do { try await bench.graph.closeAll() } catch { if case .success = outcome { outcome = .failure(error) } }
                continuation.resume(returning: outcome)
            }
        }
        for context in bench.contexts {
            context.stop()
            context.join()
        }
        bench.disks.withLock { disks in for disk in disks.values { disk.retire() } }
        try result.get()
    }
}

/// Clients that write to a disk at random, each to a part of its own, and compare what they read with a model.
final class Guests: Sendable {
    private let backend: BlockBackend
    private let parts: [Part]
    private let bounds: [Range<Int>]
    private let isEnding = Atomic<Bool>(false)
    private let complaints = Mutex<[String]>([])
    private let running = InFlightCounter()
    private let pulse: AsyncCondition<Int>
    /// Held guests wait between two requests.
    private let gate = AsyncCondition((isHeld: false, waiting: 0))
    /// Failures of these kinds were ordered; a guest makes its request again.
    private let ordered: Set<BlockError.Code>

    private final class Part: Sendable {
        let bytes: Mutex<[UInt8]>
        init(_ bytes: [UInt8]) { self.bytes = Mutex(bytes) }
    }

    init(_ backend: BlockBackend, contents: [UInt8], count: Int, seed: UInt64, pulse: AsyncCondition<Int>, orderedFailures: Set<BlockError.Code> = []) {
        self.backend = backend
        self.pulse = pulse
        ordered = orderedFailures
        var random = SeededNumbers(seed: seed)
        // Borders inside clusters, so that guests share some.
        var borders = [0]
        for index in 1..<count { borders.append(contents.count / count * index + Int.random(in: -3000...3000, using: &random)) }
        borders.append(contents.count)
        let ranges = zip(borders, borders.dropFirst()).map { $0..<$1 }
        bounds = ranges
        parts = ranges.map { Part(Array(contents[$0])) }
    }

    func start(on contexts: [IOContext], seed: UInt64, flags: RequestFlags = []) {
        for index in bounds.indices {
            running.enter()
            let seed = seed &+ UInt64(index) &* 7919
            contexts[index % contexts.count].spawn { [self] in
                var random = SeededNumbers(seed: seed)
                while !isEnding.load(ordering: .relaxed) {
                    await pass()
                    do { try await step(index, &random) } catch { complaints.withLock { $0.append("\(error)") } }
                    pulse.update { $0 += 1 }
                    await Task.yield()
                }
                running.leave()
            }
        }
    }

    private func pass() async {
        guard gate.withLock({ $0.isHeld }) else { return }
        gate.update { $0.waiting += 1 }
        _ = await gate.wait { gate -> Bool? in
            if gate.isHeld { return nil }
            gate.waiting -= 1
            return true
        }
    }

    /// Waits until no request is under way, and lets none begin until `letGo`.
    /// - Returns: what the disk holds.
    func hold() async -> [UInt8] {
        gate.update { $0.isHeld = true }
        let count = bounds.count
        await gate.wait { $0.waiting == count ? () : nil }
        return parts.flatMap { $0.bytes.withLock { $0 } }
    }

    func letGo() { gate.update { $0.isHeld = false } }

    /// Makes a request until it does not fail as was ordered.
    private func insist<Result: Sendable>(_ body: () async throws(BlockError) -> Result) async throws(BlockError) -> Result {
        while true {
            do throws(BlockError) { return try await body() } catch where ordered.contains(error.code) { await Task.yield() }
        }
    }

    private func step(_ index: Int, _ random: inout SeededNumbers) async throws {
        let part = bounds[index]
        let count = Int.random(in: 1...9000, using: &random)
        let start = Int.random(in: 0...(part.count - count), using: &random)
        let position = part.lowerBound + start
        switch Int.random(in: 0..<10, using: &random) {
        case 0...2:
            let found = try await insist { () async throws(BlockError) in try await backend.readArray(at: position, count) }
            let expected = parts[index].bytes.withLock { Array($0[start..<start + count]) }
            if let difference = firstDifference(found, expected) { complaints.withLock { $0.append("read at \(position): \(difference)") } }
        case 3:
            try await insist { () async throws(BlockError) in
                try await backend.writeZeroes(GuestRange(GuestOffset(position), byteCount: count), flags: .mayUnmap)
            }
            parts[index].bytes.withLock { $0.replaceSubrange(start..<start + count, with: repeatElement(0, count: count)) }
        case 4: try await insist { () async throws(BlockError) in try await backend.flush() }
        default:
            let byte = UInt8.random(in: 1...255, using: &random)
            let bytes = (0..<count).map { byte &+ UInt8(truncatingIfNeeded: $0) }
            let flags: RequestFlags = Int.random(in: 0..<5, using: &random) == 0 ? .forceUnitAccess : []
            try await insist { () async throws(BlockError) in try await backend.writeArray(bytes, at: position, flags: flags) }
            parts[index].bytes.withLock { $0.replaceSubrange(start..<start + count, with: bytes) }
        }
    }

    /// - Returns: what the disk should be, and what was wrong.
    func stop() async -> (contents: [UInt8], complaints: [String]) {
        isEnding.store(true, ordering: .relaxed)
        await running.waitUntilIdle()
        return (parts.flatMap { $0.bytes.withLock { $0 } }, complaints.withLock { $0 })
    }
}
