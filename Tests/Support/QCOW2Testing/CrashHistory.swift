import BlockGraph
import Foundation
package import IOCore
import StorageSchema
import StrataBase
package import StrataTesting
import Synchronization

/// Histories of a guest's operations over the driver, and what there must be afterwards. `CrashProof.crashEverywhere` judges them.
package enum CrashProof {
    package enum Operation: Hashable, Sendable, CustomStringConvertible {
        case write(Int, Int), zero(Int, Int, unmap: Bool), discard(Int, Int), compressed(Int), flush, create, apply, delete, resize(Int)
        /// Adds a persistent bitmap if there is none, and stores it.
        case bitmap
        /// Rewrites all refcounts, with 16 bits or 32.
        case amend

        package var description: String {
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
        package var isDurable: Bool {
            switch self {
            case .flush, .create, .apply, .delete, .resize, .amend: true
            case .write, .zero, .discard, .compressed, .bitmap: false
            }
        }
    }

    /// What there is after some operations.
    package struct Model: Sendable {
        package var sectors: [Int32]
        package var snapshots: [IndependentCheck.Snapshot] = []
        /// What the disk held when the bitmap was added: what differs from it is dirty.
        package var bitmapBase: [Int32]?
    }

    /// Sectors of the disk, which has two L2 tables.
    package static let size = 72

    package static let alphabet: [Operation] = [
        .write(1, 2), .write(2, 2), .zero(1, 3, unmap: false), .zero(2, 2, unmap: true), .discard(1, 3), .compressed(2), .compressed(66), .write(64, 2), .flush,
        .create, .apply, .delete, .resize(140), .resize(65), .bitmap, .amend,
    ]

    /// What a history begins with.
    package enum ImageKind: CaseIterable, Sendable {
        /// Clusters of a sector.
        case sound
        /// Written by somebody who postponed refcounts (`lazy_refcounts`) and lost power: the mark says that they are too low.
        case dirty
        /// Clusters of two sectors over a shorter backing file: writes of a part copy the rest.
        case overlay
        /// Clusters of 32 sectors with subclusters of one, over a shorter backing file.
        case subclusters

        var clusterSize: Int {
            switch self {
            case .sound, .dirty: 512
            case .overlay: 1024
            case .subclusters: 16384
            }
        }
        var hasBacking: Bool { self == .overlay || self == .subclusters }
        /// Sectors in a cluster, which compressed writes and discards are made of.
        var unit: Int { clusterSize / 512 }
    }

    /// An image before a history.
    package struct Start: Sendable {
        package var kind = ImageKind.sound
        package var disk: [UInt8]
        /// What is below, nothing if there is nothing.
        package var backing: [UInt8] = []
        package var model: Model
    }

    /// Sectors of the backing file.
    private static let backingSize = 40

    /// An image with some data, compressed clusters that share a host cluster, and a snapshot.
    package static func start(_ contents: SectorContents, _ kind: ImageKind = .sound) throws -> Start {
        let scratch = try Scratch()
        let (path, base) = (scratch.file("a.qcow2"), scratch.file("b.raw"))
        var options = "cluster_size=\(kind.clusterSize)"
        if kind == .dirty { options += ",lazy_refcounts=on" }
        if kind == .subclusters { options += ",extended_l2=on" }
        var backing: [UInt8] = []
        if kind.hasBacking {
            for sector in 0..<backingSize { backing += [UInt8](repeating: UInt8(sector + 1), count: 512) }
            try Data(backing).write(to: URL(fileURLWithPath: base))
        }
        let arguments = kind.hasBacking ? ["-b", base, "-F", "raw"] : []
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", options] + arguments + [path, String(size * 512)])
        let unit = kind.unit
        // Compressed clusters lie where no operation of the alphabet writes, or behind everything else where clusters are large.
        let compressed = unit == 32 ? [64] : [6 / unit * unit, 8]
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 133 512 1k"] + compressed.flatMap { ["-c", "write -c -P \(134 + $0) \($0 * 512) \(min(unit, size - $0) * 512)"] } + [path])
        try run("qemu-img", ["snapshot", "-c", "s", path])
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 136 1k 1k", path])
        var disk = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        if kind == .dirty { forgetRefcounts(&disk) }
        let check = try IndependentCheck(contents.numbers(of: disk), contents, over: contents.numbers(of: backing))
        guard check.snapshots.count == 1, check.guest[1] != 0, check.guest[2] != check.guest[1], check.guest[compressed[0]] > 0,
            !kind.hasBacking || check.guest[4] == contents.numbers(of: backing)[4]
        else { throw ToolFailure(description: "the image to begin with is not what it should be") }
        return Start(kind: kind, disk: disk, backing: backing, model: Model(sectors: check.guest, snapshots: check.snapshots))
    }

    /// What lazy refcounts leave after a crash: clusters that are in use and not counted, and the mark that says so.
    private static func forgetRefcounts(_ disk: inout [UInt8]) {
        func word(_ offset: Int) -> Int { disk[offset..<(offset + 8)].reduce(0) { $0 << 8 | Int($1) } }
        let block = word(word(48))
        disk[79] |= 1
        // The last clusters of the file: data and tables that came last.
        for cluster in disk.count / 512 - 4..<disk.count / 512 { (disk[block + 2 * cluster], disk[block + 2 * cluster + 1]) = (0, 0) }
    }

    package static func randomOperation(_ random: inout SeededGenerator) -> Operation {
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
}

extension CrashProof {
    package struct Played: Sendable {
        package var log: [RecordedOperation]
        /// For each operation that was carried out: host operations before it began and when it was acknowledged.
        package var spans: [(start: Int, end: Int)] = []
        package var operations: [Operation] = []
        /// What the guest wrote: by operation, the sectors' bytes, and which sectors it changed.
        package var data: [[UInt8]] = []
        package var ranges: [Range<Int>] = []
        package var identifiers: [String] = []
    }

    /// Plays a history against the driver.
    /// - Parameter recorder: has the image of `start`.
    package static func play(_ operations: [Operation], _ start: Start, _ recorder: Recorder, _ context: IOContext, salt: UInt8, retries: Bool = false) async throws -> Played {
        var played = Played(log: [])
        let before = played
        let base = Recorder(disk: start.backing)
        defer { base.forget() }
        base.state.withLock { ($0.isSlow, $0.isRecording) = (false, false) }
        let kind = start.kind
        played = try await withGraph(recorder.imageOptions(l2CacheSize: 8192, over: kind.hasBacking ? base : nil), context) { graph, disk in
            var played = before
            var amendments = 0
            guard let snapshotting = disk.node.snapshotting else { throw ToolFailure(description: "no snapshots") }
            for (number, operation) in operations.enumerated() {
                let start = recorder.state.withLock { $0.log.count }
                var data: [UInt8] = []
                var range = 0..<0
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
                    range = first..<first + count
                    for sector in 0..<count { data += (0..<512).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ number &* 31 &+ sector &* 3) ^ salt | 1 } }
                    try await attempt { try await disk.writeBytes(data, at: first * 512) }
                case .compressed(let first):
                    guard first < last else { continue }
                    range = first.roundedDown(to: kind.unit)..<min(last, first.roundedDown(to: kind.unit) + kind.unit)
                    data = [UInt8](repeating: UInt8(truncatingIfNeeded: 100 + number) ^ salt, count: range.count * 512)
                    try await attempt { try await disk.writeBytes(data, at: range.lowerBound * 512, flags: .compressed) }
                case .zero(let first, let count, let unmap):
                    guard first + count <= last else { continue }
                    range = first..<first + count
                    try await attempt { try await disk.writeZeroes(GuestRange(GuestOffset(first * 512), byteCount: count * 512), flags: unmap ? .mayUnmap : []) }
                case .discard(let first, let count):
                    guard first + count <= last else { continue }
                    range = first.roundedDown(to: kind.unit)..<min(last, (first + count).roundedUp(to: kind.unit))
                    try await attempt { try await disk.discard(GuestRange(GuestOffset(range.lowerBound * 512), byteCount: range.count * 512)) }
                case .flush: try await attempt { try await disk.flush() }
                case .create: identifier = try await attempt { try await snapshotting.createSnapshot(named: "n", moment: moment(number)).id }
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
                    try await attempt { try await amend(disk) { $0.refcountBits = bits } }
                }
                played.operations.append(operation)
                played.data.append(data)
                played.ranges.append(range)
                played.identifiers.append(identifier)
                played.spans.append((start, recorder.state.withLock { $0.log.count }))
            }
            return played
        }
        played.log = recorder.state.withLock { $0.log }
        return played
    }

    /// What there must be after each operation, the state before the first one in front.
    package static func models(_ start: Model, _ played: Played, _ contents: SectorContents) -> [Model] {
        var models = [start]
        for (number, operation) in played.operations.enumerated() {
            var model = models[number]
            let written = contents.numbers(of: played.data[number])
            switch operation {
            case .write, .compressed: model.sectors.replaceSubrange(played.ranges[number], with: written)
            case .zero, .discard: model.sectors.replaceSubrange(played.ranges[number], with: [Int32](repeating: 0, count: played.ranges[number].count))
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
}
