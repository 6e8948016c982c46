import BasicDrivers
import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// A disk without content that fails every other request when told to, and knows zeroes and discards.
final class MoodyDriver: BlockDriver, ZeroWriting, Discarding, Resizing {
    static let formatName = "null-co"
    static let kind = DriverKind.protocol
    private let size: Atomic<Int>
    private let requests = Atomic<Int>(0)
    static let fails = Atomic<Bool>(false)

    static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .nullCo(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver") }
        return MoodyDriver(own.size ?? 4096)
    }

    private init(_ size: Int) { self.size = Atomic(size) }
    var length: Int { size.load(ordering: .relaxed) }
    var supportedWriteFlags: RequestFlags { [.writeUnchanged] }

    private func pass() throws(BlockError) {
        let isOdd = requests.add(1, ordering: .relaxed).oldValue % 2 == 1
        if Self.fails.load(ordering: .relaxed), isOdd { throw BlockError(.io, "this request was told to fail") }
    }

    func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) { target.zero() }
    func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        !Self.fails.load(ordering: .relaxed) && requests.add(1, ordering: .relaxed).oldValue % 2 == 0
    }
    func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        await Task.yield()
        try pass()
    }
    func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        try pass()
        return .done
    }
    func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        try pass()
        return .done
    }
    func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        try pass()
        size.store(byteCount, ordering: .relaxed)
    }
}

private final class Flag: Sendable {
    let count: Atomic<Int>
    init(_ count: Int) { self.count = Atomic(count) }
}

@Suite("dirty bitmaps of nodes", .serialized)
struct DirtyTrackingTests {
    private static let size = 1 << 20
    private func range(_ start: Int, _ count: Int) -> GuestRange { GuestRange(GuestOffset(start), byteCount: count) }

    private func disk(_ graph: BlockGraph) async throws {
        try await graph.add(BlockdevOptions(.nullCo(BlockdevOptionsNull(size: Self.size)), nodeName: "disk", discard: .unmap))
    }

    @Test("every kind of write that succeeds or fails is noted exactly, by all that record, at once or not", arguments: [false, true])
    func everyKind(fails: Bool) async throws {
        let bench = try GraphBench(drivers: [MoodyDriver.self])
        defer { bench.close() }
        MoodyDriver.fails.store(fails, ordering: .relaxed)
        defer { MoodyDriver.fails.store(false, ordering: .relaxed) }
        try await bench.run { graph in
            try await self.disk(graph)
            let backend = try await graph.makeBackend(named: "test", on: "disk", writing)
            let fine = try await graph.addBitmap(named: "fine", to: "disk", granularity: 512)
            let coarse = try await graph.addBitmap(named: nil, to: "disk", granularity: 65536)
            let off = try await graph.addBitmap(named: "off", to: "disk", isEnabled: false)
            var model = try HierarchicalBitmap(byteCount: Self.size, granularity: 512)
            var random = SeededGenerator(seed: 3)
            let buffer = IOBuffer(zeroed: 65536)
            var failures = 0
            for round in 0..<400 {
                let start = Int.random(in: 0..<Self.size, using: &random)
                let piece = self.range(start, Int.random(in: 1...min(Self.size - start, 65536), using: &random))
                let source = buffer.vector(at: 0, byteCount: piece.byteCount)
                var marks = true
                do {
                    switch round % 5 {
                    case 0: if !backend.tryWrite(source, at: piece.start) { try await backend.write(source, at: piece.start) }
                    case 1: try await backend.write(source, at: piece.start, flags: [.forceUnitAccess])
                    case 2: try await backend.writeZeroes(piece, flags: .mayUnmap)
                    case 3: try await backend.discard(piece)
                    default:
                        marks = false
                        try await backend.write(source, at: piece.start, flags: .writeUnchanged)
                    }
                } catch { failures += 1 }
                if marks { model.set(piece) }
                #expect(fine.bits == model, "round \(round)")
                if round % 40 == 39 {
                    var widened = try HierarchicalBitmap(byteCount: Self.size, granularity: 65536)
                    widened.merge(model)
                    #expect(coarse.bits == widened)
                    fine.clearAll()
                    coarse.clearAll()
                    model.clearAll()
                }
            }
            withExtendedLifetime(buffer) {}
            #expect(off.bits.isEmpty)
            #expect((failures > 0) == fails)
            await graph.release(backend)
            try await graph.closeAll()
        }
    }

    @Test("a copy that the kernel makes is noted at its destination and nowhere else")
    func copies() async throws {
        let bench = try GraphBench()
        defer { bench.close() }
        let paths = try ["a", "b"].map { try bench.file($0, size: Self.size) }
        try await bench.run { graph in
            for path in paths { try await graph.add(fileOptions(path, name: path.hasSuffix("a") ? "a" : "b")) }
            let source = try await graph.makeBackend(named: "source", on: "a", writing)
            let target = try await graph.makeBackend(named: "target", on: "b", writing)
            let buffer = IOBuffer(byteCount: 8192)
            buffer.vector.fill(with: 7)
            try await source.write(buffer.vector, at: GuestOffset(0))
            withExtendedLifetime(buffer) {}
            let read = try await graph.addBitmap(named: "b", to: "a", granularity: 512)
            let written = try await graph.addBitmap(named: "b", to: "b", granularity: 512)
            let outcome = try await source.copyRange(self.range(0, 8192), to: target, at: GuestOffset(65536))
            #expect(outcome == .done && read.bits.isEmpty)
            #expect(written.bits.nextDirtyRange(in: self.range(0, Self.size)) == self.range(65536, 8192) && written.dirtyByteCount == 8192)
            await graph.release(source)
            await graph.release(target)
            try await graph.closeAll()
        }
    }

    @Test("a disk that grows is dirty where it has grown, one that shrinks forgets; a resize that fails changes nothing")
    func resizes() async throws {
        let bench = try GraphBench(drivers: [MoodyDriver.self])
        defer { bench.close() }
        try await bench.run { graph in
            try await self.disk(graph)
            let bitmap = try await graph.addBitmap(named: "b", to: "disk", granularity: 4096)
            let frozen = try await graph.addBitmap(named: "f", to: "disk", granularity: 4096)
            frozen.set(self.range(8192, 1))
            try frozen.freeze()
            try await graph.resize("disk", to: 512 << 10)
            #expect(bitmap.byteCount == 512 << 10 && bitmap.bits.isEmpty)
            try await graph.resize("disk", to: 2 << 20)
            #expect(bitmap.bits.nextDirtyRange(in: self.range(0, 2 << 20)) == self.range(512 << 10, 1536 << 10))
            #expect(frozen.dirtyByteCount == 4096 && frozen.byteCount == 2 << 20)
            frozen.reclaim()
            #expect(frozen.dirtyByteCount == 4096 + (1536 << 10))
            MoodyDriver.fails.store(true, ordering: .relaxed)
            defer { MoodyDriver.fails.store(false, ordering: .relaxed) }
            // One of two in a row fails.
            let before = [bitmap.bits, frozen.bits]
            var sizes: [Int] = []
            for _ in 0..<2 {
                do { try await graph.resize("disk", to: 3 << 20) } catch { #expect([bitmap.bits, frozen.bits] == before || !sizes.isEmpty) }
                sizes.append(bitmap.byteCount)
            }
            #expect(sizes.contains(3 << 20))
            try await graph.closeAll()
        }
    }

    @Test("a frozen bitmap stays as it is; afterwards it has what the successor has noted, or both")
    func successors() async throws {
        let bench = try GraphBench(drivers: [MoodyDriver.self])
        defer { bench.close() }
        try await bench.run { graph in
            try await self.disk(graph)
            let backend = try await graph.makeBackend(named: "test", on: "disk", writing)
            for isSuccess in [true, false] {
                for isEnabled in [true, false] {
                    let bitmap = try await graph.addBitmap(named: "b", to: "disk", granularity: 4096, isEnabled: isEnabled)
                    bitmap.set(self.range(0, 4096))
                    try bitmap.freeze()
                    #expect(throws: BlockError.self) { try bitmap.freeze() }
                    #expect(await message { try bitmap.check(.busy) } == "Bitmap 'b' is currently in use by another operation and cannot be used")
                    #expect(bitmap.isRecording == isEnabled && bitmap.isBusy)
                    try await backend.writeZeroes(self.range(65536, 1))
                    #expect(bitmap.dirtyByteCount == 4096)
                    #expect(bitmap.everythingDirty.dirtyByteCount == (isEnabled ? 8192 : 4096))
                    if isSuccess { bitmap.abdicate() } else { bitmap.reclaim() }
                    #expect(bitmap.dirtyByteCount == (isSuccess ? 0 : 4096) + (isEnabled ? 4096 : 0))
                    #expect(bitmap.isRecording == isEnabled && !bitmap.isBusy)
                    try await backend.writeZeroes(self.range(131072, 1))
                    #expect(bitmap.bits.isDirty(at: GuestOffset(131072)) == isEnabled)
                    await graph.removeBitmap(bitmap, from: "disk")
                }
            }
            await graph.release(backend)
            try await graph.closeAll()
        }
    }

    @Test("a loop that takes dirty parts while three threads write sees every write that is over after its last look")
    func takers() async throws {
        let bench = try GraphBench(drivers: [MoodyDriver.self])
        defer { bench.close() }
        let threads = try (0..<3).map { try IOContext.startThread(name: "io\($0)") }
        defer {
            for thread in threads {
                thread.stop()
                thread.join()
            }
        }
        let backend = try await bench.run { graph -> BlockBackend in
            try await self.disk(graph)
            return try await graph.makeBackend(named: "test", on: "disk", writing)
        }
        let bitmap = try await bench.run { graph in try await graph.addBitmap(named: nil, to: "disk", granularity: 4096) }
        let taken = DirtyBitmap(name: nil, bits: try HierarchicalBitmap(byteCount: Self.size, granularity: 4096))
        let written = DirtyBitmap(name: nil, bits: try HierarchicalBitmap(byteCount: Self.size, granularity: 4096))
        let writersLeft = Flag(threads.count)
        let whole = range(0, Self.size)
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                while writersLeft.count.load(ordering: .acquiring) > 0 {
                    while let run = bitmap.takeNextDirtyRange(in: whole, limit: 20000) {
                        #expect(run.isAligned(to: 4096) && run.byteCount <= 16384)
                        taken.set(run)
                    }
                    await Task.yield()
                }
            }
            for (index, thread) in threads.enumerated() {
                group.addTask {
                    defer { writersLeft.count.subtract(1, ordering: .releasing) }
                    try await bench.run(on: thread) { _ in
                        var random = SeededGenerator(seed: UInt64(index))
                        let buffer = IOBuffer(zeroed: 512)
                        defer { withExtendedLifetime(buffer) {} }
                        for _ in 0..<3000 {
                            let at = GuestOffset(Int.random(in: 0..<Self.size / 512, using: &random) * 512)
                            if !backend.tryWrite(buffer.vector, at: at) { try await backend.write(buffer.vector, at: at) }
                            written.set(GuestRange(at, byteCount: 512))
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        var seen = taken.bits
        seen.merge(bitmap.bits)
        #expect(seen == written.bits)
        try await bench.run { graph in
            await graph.release(backend)
            try await graph.closeAll()
        }
    }

    @Test("names and obstacles are refused in QEMU's words")
    func refusals() async throws {
        let bench = try GraphBench(drivers: [MoodyDriver.self])
        defer { bench.close() }
        try await bench.run { graph in
            try await self.disk(graph)
            try await graph.addBitmap(named: "b", to: "disk")
            func refusal(_ name: String, to node: String = "disk", granularity: Int? = nil, isPersistent: Bool = false) async -> String? {
                await message { try await graph.addBitmap(named: name, to: node, granularity: granularity, isPersistent: isPersistent) }
            }
            #expect(await refusal("b") == "Bitmap already exists: b")
            #expect(await refusal("") == "Bitmap name cannot be empty")
            #expect(await refusal("c", to: "none") == "Cannot find device='none' nor node-name='none'")
            #expect(await refusal("c", granularity: 100) == "Granularity must be power of 2 and at least 512")
            #expect(await refusal("c", isPersistent: true) == "Can't store persistent bitmaps to disk: Operation not supported")
            #expect(await message { _ = try await graph.bitmap(named: "c", of: "disk") } == "Dirty bitmap 'c' not found")
            #expect(await message { _ = try await graph.bitmap(named: "c", of: "none") } == "Node 'none' not found")
            let bits = try HierarchicalBitmap(byteCount: 4096, granularity: 512)
            let bad = DirtyBitmap(name: "bad", bits: bits, isReadOnly: true, isInconsistent: true)
            #expect(await message { try bad.check(.readOnly) } == "Bitmap 'bad' is readonly and cannot be modified")
            #expect(await message { try bad.check(.forReading) } == "Bitmap 'bad' is inconsistent and cannot be used")
            #expect(
                await message { try bad.merge(HierarchicalBitmap(byteCount: 8192, granularity: 512)) }
                    == "Bitmaps are of different sizes (destination size is 4096, source size is 8192) and can't be merged")
            try await graph.closeAll()
        }
    }
}
