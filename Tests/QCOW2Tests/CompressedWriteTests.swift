import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Testing

@Suite("compressed writes")
struct CompressedWriteTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var clusterSize: Int
        var type: String
        var refcountBits = 16
        var depth = 0
        var testDescription: String { "\(clusterSize) bytes per cluster, \(type), \(refcountBits) refcount bits, \(depth) backing files" }
    }

    static let cases: [Case] = ["zlib", "zstd"].flatMap { type in
        [
            Case(clusterSize: 512, type: type), Case(clusterSize: 512, type: type, refcountBits: 1, depth: 1), Case(clusterSize: 1024, type: type, refcountBits: 2),
            Case(clusterSize: 4096, type: type, depth: 1), Case(clusterSize: 16384, type: type, refcountBits: 64), Case(clusterSize: 65536, type: type, depth: 1),
            Case(clusterSize: 65536, type: type, refcountBits: 4), Case(clusterSize: 2 << 20, type: type),
        ]
    }

    /// Makes an image, perhaps over a full backing file, some of whose clusters QEMU has compressed.
    static func make(_ test: Case, _ clusters: Int, _ scratch: Scratch, _ model: inout DiskModel) throws -> String {
        let path = scratch.file("a.qcow2"), base = scratch.file("base.qcow2")
        let size = model.bytes.count
        let options = "cluster_size=\(test.clusterSize),compression_type=\(test.type),refcount_bits=\(test.refcountBits)"
        var overlay: [String] = []
        if test.depth > 0 {
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "compression_type=\(test.type)", base, String(size)])
            try run("qemu-io", ["-f", "qcow2", "-c", "write -P 33 0 \(size)", base])
            model.bytes = [UInt8](repeating: 33, count: size)
            overlay = ["-b", base, "-F", "qcow2"]
        }
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", options] + overlay + [path, String(size)])
        if test.refcountBits > 1 {
            var commands: [String] = []
            for cluster in stride(from: 1, to: clusters - 1, by: 5) {
                let value = UInt8(truncatingIfNeeded: cluster * 3 + 1)
                commands += ["-c", "write -c -P \(value) \(cluster * test.clusterSize) \(test.clusterSize)"]
                model.bytes.replaceSubrange(
                    (cluster * test.clusterSize)..<((cluster + 1) * test.clusterSize), with: [UInt8](repeating: value, count: test.clusterSize))
            }
            try run("qemu-io", ["-f", "qcow2"] + commands + [path])
        }
        return path
    }

    /// Data that compresses well, somewhat, or not at all.
    static func data(_ count: Int, _ model: inout DiskModel) -> [UInt8] {
        switch Int.random(in: 0..<4, using: &model.random) {
        case 0: return [UInt8](repeating: UInt8.random(in: 1...255, using: &model.random), count: count)
        case 1: return noise(count, &model.random)
        case 2:
            let half = noise(count / 2, &model.random)
            return half + [UInt8](repeating: 9, count: count - half.count)
        default: return model.data(count)
        }
    }

    static func noise(_ count: Int, _ random: inout SeededGenerator) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 8)
        while bytes.count < count {
            let word = random.next()
            for shift in stride(from: UInt64(0), to: 64, by: 8) { bytes.append(UInt8(truncatingIfNeeded: word >> shift)) }
        }
        bytes.removeLast(bytes.count - count)
        return bytes
    }

    /// A compressed write of whole clusters, or up to the end of the disk.
    static func writeCompressed(_ disk: BlockBackend, _ model: inout DiskModel) async throws -> String {
        let start = Int.random(in: 0..<model.bytes.count, using: &model.random).roundedDown(to: model.clusterSize)
        let count = [1, 1, 1, 2, 5, 40].randomElement(using: &model.random) ?? 1
        let end = min(model.bytes.count, start + min(count * model.clusterSize, 6 << 20).roundedUp(to: model.clusterSize))
        let data = data(end - start, &model)
        model.bytes.replaceSubrange(start..<end, with: data)
        try await disk.writeBytes(data, at: start, flags: Bool.random(using: &model.random) ? .compressed : [.compressed, .forceUnitAccess])
        return "compress \(start..<end)"
    }

    @Test("mixed with everything else, what we compress is what QEMU reads, and its check agrees with ours", arguments: cases)
    func bothWays(test: Case) async throws {
        let scratch = try Scratch()
        let clusters = test.clusterSize > 65536 ? 6 : 60
        // The last cluster ends early.
        let seed = UInt64(test.clusterSize + test.refcountBits + test.depth + (test.type == "zstd" ? 1000 : 0))
        var model = DiskModel(size: (clusters - 1) * test.clusterSize + (test.clusterSize > 512 ? 512 : 0), clusterSize: test.clusterSize, seed: seed)
        let path = try Self.make(test, clusters, scratch, &model)
        let start = model
        let after = try await onContext { context in
            var model = start
            for _ in 0..<2 {
                let before = model
                model = try await withImage(imageOptions(path, l2CacheSize: 8192), context) { disk in
                    var model = before
                    var history: [String] = []
                    do {
                        for _ in 0..<(test.clusterSize > 65536 ? 15 : 60) {
                            if Bool.random(using: &model.random) {
                                history.append(try await Self.writeCompressed(disk, &model))
                            } else {
                                history.append(try await model.step(disk))
                            }
                        }
                        let all = try await disk.readBytes(at: 0, model.bytes.count)
                        if let difference = firstDifference(all, model.bytes) { throw ToolFailure(description: "final read differs \(difference)") }
                    } catch { throw ToolFailure(description: "seed \(seed): \(error) after \(history.suffix(12))") }
                    return model
                }
            }
            return model
        }
        try run("qemu-img", ["check", path])
        #expect(CheckTests.numbers(try await CheckTests.ours(path)) == (try CheckTests.qemu(path)))
        let raw = scratch.file("out.raw")
        try run("qemu-img", ["convert", "-O", "raw", path, raw])
        #expect(firstDifference([UInt8](try Data(contentsOf: URL(fileURLWithPath: raw))), after.bytes) == nil)
    }

    @Test("images that we create with zstd say so, and QEMU fills and reads them", arguments: [512, 65536])
    func createsZstd(clusterSize: Int) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try await CreateTests.create(path) {
            $0.size = 4 * clusterSize
            $0.clusterSize = clusterSize
            $0.compressionType = .zstd
        }
        try run("qemu-io", ["-f", "qcow2", "-c", "write -c -P 7 0 \(clusterSize)", path])
        #expect(try run("qemu-img", ["info", path]).contains("compression type: zstd"))
        let read = try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in
                try await disk.writeBytes([UInt8](repeating: 8, count: clusterSize), at: clusterSize, flags: .compressed)
                return try await disk.readBytes(at: 0, 2 * clusterSize)
            }
        }
        #expect(read == [UInt8](repeating: 7, count: clusterSize) + [UInt8](repeating: 8, count: clusterSize))
        try run("qemu-io", ["-f", "qcow2", "-c", "read -P 8 \(clusterSize) \(clusterSize)", path])
        try run("qemu-img", ["check", path])
    }

    @Test("parts of clusters are refused, and nothing is written")
    func alignment() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", path, "41472"])
        try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in
                for (start, count) in [(512, 4096), (0, 512), (0, 4096 + 512), (36864, 512)] {
                    let error = await #expect(throws: BlockError.self) { try await disk.writeBytes([UInt8](repeating: 1, count: count), at: start, flags: .compressed) }
                    #expect(error?.code == .invalidArgument)
                }
                try await disk.writeBytes([UInt8](repeating: 1, count: 4608), at: 36864, flags: .compressed)
                #expect(try await disk.readBytes(at: 0, 41472) == [UInt8](repeating: 0, count: 36864) + [UInt8](repeating: 1, count: 4608))
            }
        }
        #expect(try CheckTests.qemu(path)?["compressed-clusters"] == 2)
    }

    @Test("what does not become shorter is stored as it is", arguments: ["zlib", "zstd"])
    func incompressible(type: String) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "compression_type=\(type)", path, "1M"])
        var random = SeededGenerator(seed: 3)
        let data = Self.noise(128 << 10, &random)
        try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in
                try await disk.writeBytes(data, at: 65536, flags: .compressed)
                #expect(try await disk.readBytes(at: 65536, data.count) == data)
            }
        }
        let check = try CheckTests.qemu(path)
        #expect(check?["allocated-clusters"] == 2 && check?["compressed-clusters"] == nil)
    }

    @Test("many small streams share host clusters, and overwriting them frees the space for others", arguments: [16, 2])
    func packing(refcountBits: Int) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "refcount_bits=\(refcountBits)", path, "4M"])
        func end() throws -> Int { try CheckTests.qemu(path)?["image-end-offset"] ?? 0 }
        let empty = try end()
        try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in
                for cluster in 0..<30 { try await disk.writeBytes([UInt8](repeating: UInt8(cluster + 1), count: 65536), at: cluster * 65536, flags: .compressed) }
            }
        }
        // A stream is some hundred bytes: one host cluster for all, or for as many as the refcount can count; and an L2 table.
        #expect(try end() == empty + 65536 * (1 + (refcountBits == 16 ? 1 : 10)))
        try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in
                for round in 0..<20 {
                    for cluster in 0..<30 {
                        let data = [UInt8](repeating: UInt8(cluster + 1), count: 65536)
                        try await disk.writeBytes(data, at: cluster * 65536, flags: (cluster + round) % 3 == 0 ? [] : .compressed)
                    }
                    try await disk.flush()
                }
                for cluster in 0..<30 { #expect(try await disk.readBytes(at: cluster * 65536, 65536) == [UInt8](repeating: UInt8(cluster + 1), count: 65536)) }
            }
        }
        try run("qemu-img", ["check", path])
        // Two generations at most, one being freed while the next is written, and not twenty.
        #expect(try end() < 65536 * 100)
        try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in try await disk.discard(GuestRange(GuestOffset(0), byteCount: 4 << 20)) }
        }
        try run("qemu-img", ["check", path])
        #expect(try CheckTests.qemu(path)?["allocated-clusters"] == nil)
    }

    @Test("new compressed data in the place of the old is not taken for the old")
    func samePlace() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        try run("qemu-img", ["create", "-q", "-f", "qcow2", path, "1M"])
        try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in
                for value in UInt8(1)...20 {
                    let data = [UInt8](repeating: value, count: 65536)
                    try await disk.writeBytes(data, at: 0, flags: .compressed)
                    #expect(try await disk.readBytes(at: 0, 65536) == data)
                    try await disk.discard(GuestRange(GuestOffset(0), byteCount: 65536))
                    for _ in 0..<3 { try await disk.flush() }
                }
            }
        }
    }

    @Test("clients on three threads compress, overwrite, discard and read side by side", arguments: [512, 65536], ["zlib", "zstd"])
    func concurrent(clusterSize: Int, type: String) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a.qcow2")
        let clients = 6, clusters = 72
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize),compression_type=\(type)", path, String(clusters * clusterSize)])
        try await onContext { context in
            try await withImage(imageOptions(path, l2CacheSize: 8192), context) { disk in
                let threads = try [IOContext.startThread(name: "a"), IOContext.startThread(name: "b"), IOContext.startThread(name: "c")]
                defer { for thread in threads { thread.stop() } }
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for client in 0..<clients {
                        group.addTask(executorPreference: threads[client % 3]) { try await Self.client(client, of: clients, clusters, disk, clusterSize) }
                    }
                    group.addTask { for _ in 0..<30 { try await disk.flush() } }
                    try await group.waitForAll()
                }
            }
        }
        try run("qemu-img", ["check", path])
    }

    /// Uses every `count`th cluster, as nobody else does, and compares it with a model at every step.
    static func client(_ number: Int, of count: Int, _ clusters: Int, _ disk: BlockBackend, _ clusterSize: Int) async throws {
        var model = DiskModel(size: clusterSize, clusterSize: clusterSize, seed: UInt64(number + 50))
        var own: [Int: [UInt8]] = [:]
        for step in 0..<120 {
            let cluster = Int.random(in: 0..<(clusters / count), using: &model.random) * count + number
            let known = own[cluster] ?? [UInt8](repeating: 0, count: clusterSize)
            let found = try await disk.readBytes(at: cluster * clusterSize, clusterSize)
            if let difference = firstDifference(found, known) { throw ToolFailure(description: "client \(number), step \(step), cluster \(cluster) \(difference)") }
            switch Int.random(in: 0..<6, using: &model.random) {
            case 0..<3:
                own[cluster] = data(clusterSize, &model)
                try await disk.writeBytes(own[cluster] ?? [], at: cluster * clusterSize, flags: .compressed)
            case 3:
                let part = clusterSize / 4
                own[cluster] = known.prefix(part) + [UInt8](repeating: UInt8(step), count: part) + known.suffix(2 * part)
                try await disk.writeBytes([UInt8](repeating: UInt8(step), count: part), at: cluster * clusterSize + part)
            case 4:
                own[cluster] = nil
                try await disk.discard(GuestRange(GuestOffset(cluster * clusterSize), byteCount: clusterSize))
            default: try await disk.flush()
            }
        }
    }
}
