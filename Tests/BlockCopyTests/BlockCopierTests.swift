import BlockCopy
import BlockGraph
import DriverTesting
import IOCore
import StrataBase
import Synchronization
import Testing

@Suite("block copier")
struct BlockCopierTests {
    private static let size = 512 * 1501

    @Test("the target becomes what the source is, whatever the settings", arguments: 1...40 as ClosedRange<UInt64>)
    func copies(seed: UInt64) async throws {
        var random = SeededNumbers(seed: seed)
        var properties = SimulatedDisk.Properties(alignment: [1, 512].randomElement(using: &random) ?? 1)
        properties.suspends = Bool.random(using: &random)
        properties.seed = seed
        properties.writesZeroes = Int.random(in: 0..<4, using: &random) > 0
        properties.longestTransfer = [.max, 4096].randomElement(using: &random) ?? .max
        if Int.random(in: 0..<3, using: &random) == 0 { (properties.compressionUnit, properties.longestTransfer) = (8192, .max) }
        let (source, target) = (SimulatedDisk(byteCount: Self.size, properties), SimulatedDisk(byteCount: Self.size + 512 * 3, properties))
        let contents = stripedContents(Self.size, seed: seed)
        // Holes where there is nothing, so that the source tells of zeroes; some zeroes are data.
        source.setContents(contents, holes: Int.random(in: 0..<4, using: &random) > 0)
        var settings = CopySettings()
        settings.workers = Int.random(in: 1...6, using: &random)
        settings.pieceSize = [4096, 16384, 65536].randomElement(using: &random) ?? 4096
        settings.sparseUnit = [0, 512, 4096].randomElement(using: &random) ?? 0
        settings.targetIsZero = Bool.random(using: &random)
        settings.asksTarget = Bool.random(using: &random)
        settings.isOrdered = Bool.random(using: &random)
        settings.sourceIsStable = Bool.random(using: &random)
        settings.compressionUnit = properties.compressionUnit
        if !settings.targetIsZero { target.setContents(stripedContents(target.contents.count, seed: seed + 1000), holes: true) }
        let rest = Array(target.contents[Self.size...])
        let clusterSize = [nil, 16384].randomElement(using: &random) ?? nil
        let chosen = settings
        try await CopyBench.run(source, target) { bench, from, to in
            let work = StripeCursor(length: Self.size, stripeSize: max(chosen.pieceSize, chosen.compressionUnit ?? 1))
            let watch = Watch()
            let copier = BlockCopier(
                ChainSource(from.root, length: Self.size), to: to.root, clusterSize: clusterSize, work: work, chosen, gates: [from, to], delegate: watch)
            try await copier.run(on: bench.contexts)
            #expect(work.done == Self.size)
            #expect(watch.state.withLock { $0.finished } == Self.size)
        }
        #expect(firstDifference(target.contents, contents + rest) == nil)
        #expect(source.violations.isEmpty && target.violations.isEmpty, "\(source.violations) \(target.violations)")
    }

    @Test("zeroes that the target has already are not written, and holes of the source are not read")
    func leavesOut() async throws {
        let (source, target) = (SimulatedDisk(byteCount: 1 << 20), SimulatedDisk(byteCount: 1 << 20))
        var (old, new) = ([UInt8](repeating: 0, count: 1 << 20), [UInt8](repeating: 0, count: 1 << 20))
        for index in 0..<65536 { (old[index], old[index + 262_144], new[index]) = (1, 1, 2) }
        source.setContents(new, holes: true)
        target.setContents(old, holes: true)
        let (wanted, kept) = (new, 262_144..<327_680)
        try await CopyBench.run(source, target) { bench, from, to in
            var settings = CopySettings()
            settings.asksTarget = true
            let work = StripeCursor(length: 1 << 20, stripeSize: settings.pieceSize)
            let copier = BlockCopier(ChainSource(from.root, length: 1 << 20), to: to.root, work: work, settings, gates: [from, to], delegate: Watch())
            try await copier.run(on: bench.contexts)
        }
        #expect(firstDifference(target.contents, wanted) == nil)
        let zeroed = target.requests.filter { $0.operation == .writeZeroes }
        #expect(zeroed.reduce(0) { $0 + $1.range.byteCount } == kept.count, "\(zeroed)")
        let read = source.requests.filter { $0.operation == .read }
        #expect(read.reduce(0) { $0 + $1.range.byteCount } == 65536, "\(read)")
    }

    @Test("what fails is tried again when that is wanted", arguments: [SimulatedDisk.Operation.read, .write, .writeZeroes, .blockStatus])
    func retries(_ operation: SimulatedDisk.Operation) async throws {
        let (source, target) = (SimulatedDisk(byteCount: Self.size), SimulatedDisk(byteCount: Self.size))
        let contents = stripedContents(Self.size, seed: 7)
        source.setContents(contents, holes: true)
        target.setContents([UInt8](repeating: 9, count: Self.size))
        let isAtSource = operation == .read || operation == .blockStatus
        (isAtSource ? source : target).fail(SimulatedDisk.Fault([operation], .io, skipped: 3, count: 5))
        try await CopyBench.run(source, target) { bench, from, to in
            var settings = CopySettings()
            settings.pieceSize = 16384
            let watch = Watch(.retry)
            let work = StripeCursor(length: Self.size, stripeSize: 16384)
            let copier = BlockCopier(ChainSource(from.root, length: Self.size), to: to.root, work: work, settings, gates: [from, to], delegate: watch)
            try await copier.run(on: bench.contexts)
            let failures = watch.state.withLock { $0.failures }
            #expect(failures.count == 5)
            #expect(failures.allSatisfy { $0.isRead == isAtSource && $0.error.code == .io })
            #expect(work.done == Self.size)
        }
        #expect(firstDifference(target.contents, contents) == nil)
    }

    @Test("the first error ends it when that is wanted, and names what failed")
    func stops() async throws {
        let (source, target) = (SimulatedDisk(byteCount: Self.size), SimulatedDisk(byteCount: Self.size))
        source.setContents(stripedContents(Self.size, seed: 7))
        target.fail(SimulatedDisk.Fault([.write], .noSpace, skipped: 4))
        try await CopyBench.run(source, target) { bench, from, to in
            let watch = Watch()
            var settings = CopySettings()
            settings.pieceSize = 16384
            settings.isOrdered = true
            let work = StripeCursor(length: Self.size, stripeSize: 16384)
            let copier = BlockCopier(ChainSource(from.root, length: Self.size), to: to.root, work: work, settings, gates: [from, to], delegate: watch)
            let error = await #expect(throws: BlockError.self) { try await copier.run(on: bench.contexts) }
            #expect(error?.code == .noSpace)
            #expect(error?.description.contains("error while writing at byte") == true, "\(error.debugDescription)")
            #expect(work.next() == nil)
        }
    }

    @Test("a copy that has failed is taken up again where it was")
    func takenUpAgain() async throws {
        let (source, target) = (SimulatedDisk(byteCount: Self.size), SimulatedDisk(byteCount: Self.size))
        let contents = stripedContents(Self.size, seed: 9)
        source.setContents(contents)
        source.fail(SimulatedDisk.Fault([.read], .io, skipped: 3, count: 1))
        try await CopyBench.run(source, target) { bench, from, to in
            var settings = CopySettings()
            (settings.pieceSize, settings.workers) = (65536, 1)
            let work = try ClusterWork(byteCount: Self.size, clusterSize: 65536, longestPiece: 65536)
            work.markAll()
            let copier = BlockCopier(ChainSource(from.root, length: Self.size), to: to.root, work: work, settings, gates: [from, to], delegate: Watch())
            await #expect(throws: BlockError.self) { try await copier.run(on: bench.contexts) }
            #expect(work.openByteCount > 0 && work.openByteCount == work.markedByteCount)
            work.restart()
            try await copier.run(on: bench.contexts)
            #expect(work.openByteCount == 0)
        }
        #expect(firstDifference(target.contents, contents) == nil)
    }

    @Test("what is being copied is not done with until it is")
    func openClusters() async throws {
        let work = try ClusterWork(byteCount: 1 << 20, clusterSize: 65536, longestPiece: 65536)
        work.markAll()
        guard case .piece(let piece) = await work.claim(in: GuestRange(GuestOffset(0), byteCount: 65536), longestPiece: 65536) else {
            Issue.record("nothing to copy")
            return
        }
        #expect(!work.marked.isDirty(at: GuestOffset(0)) && work.open.isDirty(at: GuestOffset(0)) && work.open.dirtyByteCount == 1 << 20)
        work.finish(piece, succeeded: true)
        #expect(!work.open.isDirty(at: GuestOffset(0)) && work.open == work.marked)
    }

    @Test("a target that is too short fails the copy, with zeroes as with data", arguments: [true, false], [true, false])
    func shortTarget(asksTarget: Bool, isZero: Bool) async throws {
        let (source, target) = (SimulatedDisk(byteCount: 65536), SimulatedDisk(byteCount: 20480))
        source.setContents([UInt8](repeating: isZero ? 0 : 1, count: 65536), holes: true)
        try await CopyBench.run(source, target) { bench, from, to in
            var settings = CopySettings()
            (settings.pieceSize, settings.asksTarget) = (8192, asksTarget)
            let copier = BlockCopier(
                ChainSource(from.root, length: 65536), to: to.root, work: StripeCursor(length: 65536, stripeSize: 8192), settings, gates: [from, to],
                delegate: Watch())
            let error = await #expect(throws: BlockError.self) { try await copier.run(on: bench.contexts) }
            #expect(error?.code == .invalidArgument)
        }
    }

    @Test("a cancelled copy ends soon, and whoever asked for the rest later gets the rest")
    func cancelled() async throws {
        let (source, target) = (SimulatedDisk(byteCount: Self.size), SimulatedDisk(byteCount: Self.size))
        let contents = stripedContents(Self.size, seed: 3)
        source.setContents(contents)
        try await CopyBench.run(source, target) { bench, from, to in
            var settings = CopySettings()
            (settings.pieceSize, settings.workers) = (4096, 3)
            let watch = Watch { $0.admitted <= 20 }
            let work = StripeCursor(length: Self.size, stripeSize: 4096)
            let copier = BlockCopier(ChainSource(from.root, length: Self.size), to: to.root, work: work, settings, gates: [from, to], delegate: watch)
            try await copier.run(on: bench.contexts)
            #expect(work.done == 20 * 4096)
            let second = BlockCopier(ChainSource(from.root, length: Self.size), to: to.root, work: work, settings, gates: [from, to], delegate: Watch())
            try await second.run(on: bench.contexts)
        }
        #expect(firstDifference(target.contents, contents) == nil)
    }

    @Test("drained sections over one disk or both stop a copy between pieces and let it go on", arguments: 1...5 as ClosedRange<UInt64>)
    func drains(seed: UInt64) async throws {
        var properties = SimulatedDisk.Properties()
        (properties.suspends, properties.seed) = (true, seed)
        let (source, target) = (SimulatedDisk(byteCount: Self.size, properties), SimulatedDisk(byteCount: Self.size, properties))
        let contents = stripedContents(Self.size, seed: seed)
        source.setContents(contents)
        try await CopyBench.run(source, target) { bench, from, to in
            var settings = CopySettings()
            (settings.pieceSize, settings.workers) = (2048, 5)
            let copier = BlockCopier(
                ChainSource(from.root, length: Self.size), to: to.root, work: StripeCursor(length: Self.size, stripeSize: 2048), settings, gates: [from, to],
                delegate: Watch())
            async let copying: Void = copier.run(on: bench.contexts)
            var random = SeededNumbers(seed: seed)
            for _ in 0..<30 {
                let names = [["source"], ["target"], ["source", "target"]].randomElement(using: &random) ?? []
                try await bench.graph.withDrained(names) { () async throws(BlockError) in
                    // Both, because a piece is one request of both.
                    #expect(source.requestsInFlight == 0 && target.requestsInFlight == 0)
                    await Task.yield()
                    #expect(source.requestsInFlight == 0 && target.requestsInFlight == 0)
                }
                await Task.yield()
            }
            try await copying
        }
        #expect(firstDifference(target.contents, contents) == nil)
    }
}

extension SimulatedDisk {
    /// Fills the disk; with `holes`, units that are all zero are not allocated.
    func setContents(_ bytes: [UInt8], holes: Bool) { setContents(bytes, isData: holes ? { !$0.allSatisfy { $0 == 0 } } : { _ in true }) }
}
