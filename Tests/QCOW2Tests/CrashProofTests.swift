import BlockGraph
import Foundation
import IOCore
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// Docs/CrashConsistency.md, proven: a guest's operations over the driver over a disk with a volatile cache, and after a crash at any point an image that an
/// independent checker finds sound and that holds what was flushed.
@Suite("qcow2 whenever the power fails")
struct CrashProofTests {
    enum Operation: Hashable, Sendable, CustomStringConvertible {
        case write(Int, Int), zero(Int, Int, unmap: Bool), discard(Int, Int), compressed(Int), flush, create, apply, delete, resize(Int)
        /// Adds a persistent bitmap if there is none, and stores it.
        case bitmap
        /// Rewrites all refcounts, with 16 bits or 32.
        case amend

        var description: String {
            switch self {
            case .write(let start, let count): "write \(start)+\(count)"
            case .zero(let start, let count, let unmap): "zero \(start)+\(count)\(unmap ? " unmap" : "")"
            case .discard(let start, let count): "discard \(start)+\(count)"
            case .compressed(let start): "compressed \(start)"
            case .flush: "flush"
            case .create: "create"
            case .apply: "apply"
            case .delete: "delete"
            case .resize(let size): "resize \(size)"
            case .bitmap: "bitmap"
            case .amend: "amend"
            }
        }

        /// Whether everything before it is on stable storage when it is acknowledged.
        var isDurable: Bool {
            switch self {
            case .flush, .create, .apply, .delete, .resize, .amend: true
            case .write, .zero, .discard, .compressed, .bitmap: false
            }
        }
    }

    /// What there is after some operations.
    struct Model: Sendable {
        var sectors: [Int32]
        var snapshots: [IndependentCheck.Snapshot] = []
        /// What the disk held when the bitmap was added: what differs from it is dirty.
        var bitmapBase: [Int32]?
    }

    /// Sectors of the disk, which has two L2 tables.
    static let size = 72

    static let alphabet: [Operation] = [
        .write(1, 2), .write(2, 2), .zero(1, 3, unmap: false), .zero(2, 2, unmap: true), .discard(1, 3), .compressed(2), .compressed(66), .write(64, 2), .flush,
        .create, .apply, .delete, .resize(140), .resize(65), .bitmap, .amend,
    ]

    /// An image with some data, compressed clusters that share a host cluster, and a snapshot.
    static func start(_ contents: SectorContents) throws -> (disk: [UInt8], model: Model) {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, String(size * 512)])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 33 512 1k", "-c", "write -c -P 34 2560 512", "-c", "write -c -P 35 3072 512", path])
        try run("qemu-img", ["snapshot", "-c", "s", path])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 36 1k 1k", path])
        let disk = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        let check = try IndependentCheck(contents.numbers(of: disk), contents)
        try #require(check.snapshots.count == 1 && check.guest[1] != 0 && check.guest[2] != check.guest[1] && check.guest[5] > 0)
        return (disk, Model(sectors: check.guest, snapshots: check.snapshots))
    }

    struct Played: Sendable {
        var log: [RecordedOperation]
        /// For each operation that was carried out: host operations before it began and when it was acknowledged.
        var spans: [(start: Int, end: Int)] = []
        var operations: [Operation] = []
        /// What the guest wrote: by operation, the sectors' bytes.
        var data: [[UInt8]] = []
        var identifiers: [String] = []
    }

    /// Plays a history against the driver.
    static func play(_ operations: [Operation], _ recorder: Recorder, _ context: IOContext, salt: UInt8, retries: Bool = false) async throws -> Played {
        var played = Played(log: [])
        let before = played
        played = try await SnapshotTests.withGraph(recorder.imageOptions(l2CacheSize: 8192), context) { graph, disk in
            var played = before
            var amendments = 0
            guard let snapshotting = disk.node.snapshotting else { throw ToolFailure(description: "no snapshots") }
            for (number, operation) in operations.enumerated() {
                let start = recorder.state.withLock { $0.log.count }
                var data: [UInt8] = []
                var identifier = ""
                let last = disk.length / 512
                /// Does something again that failed once.
                func attempt<T>(_ body: () async throws -> T) async throws -> T {
                    do { return try await body() } catch {
                        guard retries else { throw error }
                        return try await body()
                    }
                }
                switch operation {
                case .write(let first, let count):
                    guard first + count <= last else { continue }
                    for sector in 0..<count { data += (0..<512).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ number &* 31 &+ sector &* 3) ^ salt | 1 } }
                    try await attempt { try await disk.writeBytes(data, at: first * 512) }
                case .compressed(let first):
                    guard first < last else { continue }
                    data = [UInt8](repeating: UInt8(truncatingIfNeeded: 100 + number) ^ salt, count: 512)
                    try await attempt { try await disk.writeBytes(data, at: first * 512, flags: .compressed) }
                case .zero(let first, let count, let unmap):
                    guard first + count <= last else { continue }
                    try await attempt { try await disk.writeZeroes(GuestRange(GuestOffset(first * 512), byteCount: count * 512), flags: unmap ? .mayUnmap : []) }
                case .discard(let first, let count):
                    guard first + count <= last else { continue }
                    try await attempt { try await disk.discard(GuestRange(GuestOffset(first * 512), byteCount: count * 512)) }
                case .flush: try await attempt { try await disk.flush() }
                case .create: identifier = try await attempt { try await snapshotting.createSnapshot(named: "n", moment: SnapshotTests.moment(number)).id }
                case .apply, .delete:
                    // Nobody applies a snapshot below a bitmap, which would not know what that changes.
                    if operation == .apply, !disk.node.bitmaps.all.isEmpty { continue }
                    guard let chosen = try await attempt({ try await snapshotting.listSnapshots().last }) else { continue }
                    identifier = chosen.id
                    if operation == .apply {
                        try await attempt { try await snapshotting.applySnapshot(SnapshotSelector(id: chosen.id)) }
                    } else {
                        _ = try await attempt { try await snapshotting.deleteSnapshot(SnapshotSelector(id: chosen.id)) }
                    }
                case .resize(let size):
                    // Nothing happens, and nothing becomes durable by that.
                    if size == last { continue }
                    try await attempt { try await disk.resize(to: size * 512) }
                case .bitmap:
                    if disk.node.bitmaps.all.isEmpty { _ = try await attempt { try await graph.addBitmap(named: "b", to: "disk", granularity: 512, isPersistent: true) } }
                    // Bitmaps are stored when the last writer has gone.
                    let grant = PermissionGrant(used: [.consistentRead, .write, .resize], shared: .all)
                    try await attempt { try await graph.setGrant(PermissionGrant(used: .consistentRead, shared: .all), of: disk) }
                    try await attempt { try await graph.setGrant(grant, of: disk) }
                case .amend:
                    amendments += 1
                    let bits = amendments % 2 == 1 ? 32 : 16
                    try await attempt { try await AmendTests.amend(disk) { $0.refcountBits = bits } }
                }
                played.operations.append(operation)
                played.data.append(data)
                played.identifiers.append(identifier)
                played.spans.append((start, recorder.state.withLock { $0.log.count }))
            }
            return played
        }
        played.log = recorder.state.withLock { $0.log }
        return played
    }

    /// What there must be after each operation, the state before the first one in front.
    static func models(_ start: Model, _ played: Played, _ contents: SectorContents) -> [Model] {
        var models = [start]
        for (number, operation) in played.operations.enumerated() {
            var model = models[number]
            let written = contents.numbers(of: played.data[number])
            switch operation {
            case .write(let first, let count): model.sectors.replaceSubrange(first..<(first + count), with: written)
            case .compressed(let first): model.sectors[first] = written[0]
            case .zero(let first, let count, _), .discard(let first, let count):
                model.sectors.replaceSubrange(first..<(first + count), with: [Int32](repeating: 0, count: count))
            case .flush, .amend: break
            case .bitmap: model.bitmapBase = model.bitmapBase ?? model.sectors
            case .create: model.snapshots.append(.init(id: played.identifiers[number], sectors: model.sectors))
            case .apply: model.sectors = model.snapshots.first { $0.id == played.identifiers[number] }?.sectors ?? []
            case .delete: model.snapshots.removeAll { $0.id == played.identifiers[number] }
            case .resize(let size):
                if size < model.sectors.count { model.sectors.removeLast(model.sectors.count - size) }
                model.sectors += [Int32](repeating: 0, count: size - model.sectors.count)
            }
            models.append(model)
        }
        return models
    }

    /// What is wrong with a state, if anything.
    /// - Parameter models: what was durable, and what there was after every operation that had begun since.
    static func judge(_ disk: [Int32], _ models: ArraySlice<Model>, _ contents: SectorContents) -> String? {
        let check: IndependentCheck
        do { check = try IndependentCheck(disk, contents) } catch { return "\(error)" }
        guard models.contains(where: { $0.snapshots == check.snapshots }) else { return "the snapshots are \(check.snapshots.map(\.id))" }
        guard models.contains(where: { $0.sectors.count == check.guest.count }) else { return "the disk has \(check.guest.count) sectors" }
        for (sector, found) in check.guest.enumerated() {
            let isAllowed = models.contains { model in sector < model.sectors.count ? model.sectors[sector] == found : found == 0 }
            if !isAllowed { return "sector \(sector) has content \(found), allowed are \(models.map { sector < $0.sectors.count ? $0.sectors[sector] : 0 })" }
        }
        for bitmap in check.bitmaps where !bitmap.isInUse {
            guard let base = models.last?.bitmapBase else { return "a bitmap that nobody has added" }
            for (sector, found) in check.guest.enumerated() where found != (sector < base.count ? base[sector] : 0) {
                if sector >= bitmap.isDirty.count || !bitmap.isDirty[sector] { return "sector \(sector) differs from what it was when the bitmap was added, and is clean" }
            }
        }
        return nil
    }

    /// Crashes after every host operation of a history.
    /// - Returns: how many different states were judged.
    static func crashEverywhere(
        _ initial: [UInt8], _ played: Played, _ start: Model, _ contents: SectorContents, limit: Int, _ random: inout SeededGenerator
    ) throws -> Int {
        let models = models(start, played, contents)
        var disk = VolatileDisk(contents.numbers(of: initial))
        var seen: Set<Int> = []
        var flushes = 0
        var judged = 0
        for (number, event) in ([SectorEvent.flush] + SectorEvent.list(played.log, from: initial, contents)).enumerated() {
            disk.apply(event)
            if case .flush = event { flushes += 1 }
            // Host operations that have been carried out, without the flush in front.
            let point = number
            let durable = played.operations.indices.last { played.operations[$0].isDurable && played.spans[$0].end <= point }
            let base = durable.map { $0 + 1 } ?? 0
            let begun = played.operations.indices.last { played.spans[$0].start < point || played.spans[$0].end <= point }.map { $0 + 1 } ?? 0
            let allowed = models[base...max(base, begun)]
            try disk.forEachState(limit: limit, &random) { state, key in
                var hasher = Hasher()
                hasher.combine(flushes)
                hasher.combine(base)
                hasher.combine(key)
                guard seen.insert(hasher.finalize()).inserted else { return }
                judged += 1
                if let problem = judge(state, allowed, contents) {
                    throw ToolFailure(description: "after \(played.operations.map(\.description)), crash behind host operation \(point) of \(played.log.count) (\(played.spans)): \(problem)")
                }
            }
        }
        return judged
    }

    @Test("after any three operations, at every point and in every order, nothing is corrupt and nothing flushed is lost", arguments: alphabet)
    func exhaustive(first: Operation) async throws {
        let contents = SectorContents()
        let (initial, model) = try Self.start(contents)
        let alphabet = Self.alphabet
        var histories: [Played] = []
        histories = try await onContext { context in
            var histories: [Played] = []
            for second in alphabet {
                for third in alphabet {
                    let recorder = Recorder(disk: initial)
                    defer { recorder.forget() }
                    recorder.state.withLock { $0.isSlow = false }
                    histories.append(try await Self.play([first, second, third], recorder, context, salt: 0))
                }
            }
            return histories
        }
        var random = SeededGenerator(seed: 1)
        var judged = 0
        for played in histories { judged += try Self.crashEverywhere(initial, played, model, contents, limit: 64, &random) }
        #expect(judged > 7200, "\(judged) states")
    }

    static func randomOperation(_ random: inout SeededGenerator) -> Operation {
        let start = Int.random(in: 0..<70, using: &random), count = Int.random(in: 1...6, using: &random)
        switch Int.random(in: 0..<22, using: &random) {
        case 0..<6: return .write(start, count)
        case 6..<8: return .zero(start, count, unmap: Bool.random(using: &random))
        case 8..<10: return .discard(start, count)
        case 10..<14: return .compressed(start)
        case 14: return .create
        case 15: return .apply
        case 16: return .delete
        case 17: return .resize(Int.random(in: 60..<200, using: &random))
        case 18: return Int.random(in: 0..<3, using: &random) == 0 ? .bitmap : .flush
        case 19: return .amend
        default: return .flush
        }
    }

    /// `STRATA_CRASH_SEED=number` replays one; the extended suite tries until ten million states were judged.
    static let seeds: [UInt64] = {
        let environment = ProcessInfo.processInfo.environment
        if let seed = environment["STRATA_CRASH_SEED"].flatMap({ UInt64($0) }) { return [seed] }
        return Array(0..<(environment["STRATA_EXTENDED"] == nil ? 16 : 4000))
    }()

    @Test("after long random histories the same", arguments: seeds)
    func random(seed: UInt64) async throws {
        let contents = SectorContents()
        let (initial, model) = try Self.start(contents)
        var random = SeededGenerator(seed: seed)
        let operations = (0..<40).map { _ in Self.randomOperation(&random) }
        let played = try await onContext { context in
            let recorder = Recorder(disk: initial)
            defer { recorder.forget() }
            recorder.state.withLock { $0.isSlow = seed % 2 == 0 }
            return try await Self.play(operations, recorder, context, salt: UInt8(truncatingIfNeeded: seed &* 8))
        }
        do {
            let judged = try Self.crashEverywhere(initial, played, model, contents, limit: Self.seeds.count > 16 ? 512 : 24, &random)
            #expect(judged > 500, "\(judged) states")
        } catch { throw ToolFailure(description: "STRATA_CRASH_SEED=\(seed): \(error)") }
    }

    @Test("the judge is not blind: without the driver's flushes, and with refcounts or flags that are wrong, it finds fault")
    func judgeSees() async throws {
        let contents = SectorContents()
        let (initial, model) = try Self.start(contents)
        let operations: [Operation] = [.write(1, 4), .flush, .discard(1, 3), .flush, .write(10, 6), .create, .write(2, 2), .flush]
        var played = try await onContext { context in
            let recorder = Recorder(disk: initial)
            defer { recorder.forget() }
            return try await Self.play(operations, recorder, context, salt: 3)
        }
        var random = SeededGenerator(seed: 5)
        #expect(try Self.crashEverywhere(initial, played, model, contents, limit: 64, &random) > 50)
        played.log = played.log.map { if case .flush = $0 { .write(offset: 0, bytes: []) } else { $0 } }
        let unordered = played
        #expect(throws: ToolFailure.self) { _ = try Self.crashEverywhere(initial, unordered, model, contents, limit: 64, &random) }

        // A bitmap is believed when it was stored, and one that forgets a sector is found out.
        let (remembered, place) = try await onContext { context in
            let recorder = Recorder(disk: initial)
            defer { recorder.forget() }
            _ = try await Self.play([.bitmap, .write(1, 2), .bitmap, .flush], recorder, context, salt: 5)
            let disk = recorder.state.withLock { $0.disk }
            // The bits of sectors 1 and 2 alone, in a cluster of their own.
            let place = stride(from: 0, to: disk.count, by: 512).first { disk[$0] == 6 && disk[$0 + 1..<min($0 + 512, disk.count)].allSatisfy { $0 == 0 } }
            return (disk, place)
        }
        var expected = model
        expected.bitmapBase = model.sectors
        let stored = try IndependentCheck(contents.numbers(of: remembered), contents)
        expected.sectors = stored.guest
        #expect(stored.bitmaps.count == 1 && stored.bitmaps[0].isInUse == false && stored.bitmaps[0].isDirty.prefix(4) == [false, true, true, false])
        #expect(Self.judge(contents.numbers(of: remembered), [expected], contents) == nil)
        var forgetful = remembered
        forgetful[try #require(place)] = 2
        #expect(Self.judge(contents.numbers(of: forgetful), [expected], contents)?.contains("is clean") == true)

        func word(_ offset: Int) -> Int { initial[offset..<(offset + 8)].reduce(0) { $0 << 8 | Int($1) } }
        let (block, l1) = (word(word(48)), word(40))
        for offset in [block + 1, block + 2 * (l1 / 512) + 1, l1] {
            var damaged = initial
            damaged[offset] ^= offset == l1 ? 0x80 : 1
            #expect(throws: IndependentCheck.Problem.self) { _ = try IndependentCheck(contents.numbers(of: damaged), contents) }
        }
    }
}
