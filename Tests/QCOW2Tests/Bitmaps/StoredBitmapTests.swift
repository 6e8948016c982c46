import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Testing

@Suite("bitmaps in qcow2 images")
struct StoredBitmapTests {
    private static func options(_ path: String, readOnly: Bool = false) -> BlockdevOptions { imageOptions(path, readOnly: readOnly, discard: false) }

    private static func open<T: Sendable>(
        _ path: String, readOnly: Bool = false, _ body: @escaping @Sendable (BlockGraph, BlockNode) async throws -> T
    ) async throws -> T {
        try await onContext { context in
            let graph = BlockGraph(context: context, drivers: DriverRegistry(testDrivers))
            let node = try await graph.add(options(path, readOnly: readOnly))
            let result: Result<T, any Error>
            do { result = .success(try await body(graph, node)) } catch { result = .failure(error) }
            try await graph.closeAll()
            return try result.get()
        }
    }

    /// The bitmaps that QEMU finds: name, granularity and flags.
    private static func infos(_ path: String) throws -> [String] {
        let text = try run("qemu-img", ["info", "--output=json", path])
        let json = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
        let data = (json?["format-specific"] as? [String: Any])?["data"] as? [String: Any]
        return (data?["bitmaps"] as? [[String: Any]] ?? []).map { "\($0["name"] ?? "") \($0["granularity"] ?? "") \($0["flags"] as? [String] ?? [])" }.sorted()
    }

    private static func range(_ start: Int, _ count: Int) -> GuestRange { GuestRange(GuestOffset(start), byteCount: count) }

    private func make(_ path: String, _ size: String, clusterSize: Int = 65536, _ more: [String] = []) throws {
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", (["cluster_size=\(clusterSize)"] + more).joined(separator: ","), path, size])
    }

    @Test("a node that nobody writes to leaves the image byte for byte as it was, with bitmaps and without", arguments: [false, true])
    func untouched(readOnly: Bool) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a")
        try make(path, "64M")
        try run("qemu-img", ["bitmap", "--add", path, "b"])
        let before = try Data(contentsOf: URL(fileURLWithPath: path))
        let names = try await Self.open(path, readOnly: readOnly) { graph, node in
            let backend = try await graph.makeBackend(named: "reader", on: "disk", PermissionGrant(used: .consistentRead, shared: .all))
            _ = try await backend.readBytes(at: 0, 4096)
            await graph.release(backend)
            return node.bitmaps.named.map { "\($0.name ?? "") \($0.isPersistent) \($0.isReadOnly) \($0.isRecording) \($0.isInconsistent)" }
        }
        #expect(names == ["b true \(readOnly) true false"])
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before)
    }

    @Test("what our first write used to lose is kept: bitmaps by QEMU go on under our writes, stay in use while we write, and are stored when we are done")
    func firstWrite() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a")
        try make(path, "64M")
        try run("qemu-img", ["bitmap", "--add", "-g", "4096", path, "on"])
        try run("qemu-img", ["bitmap", "--add", "--disable", path, "off"])
        try run("qemu-io", ["-c", "write 1M 8k", path])
        let counts = try await Self.open(path) { graph, node in
            let backend = try await graph.makeBackend(named: "writer", on: "disk", PermissionGrant(used: [.consistentRead, .write], shared: .all))

            try await backend.writeBytes([UInt8](repeating: 1, count: 4096), at: 2 << 20)
            try await backend.flush()
            let during = try run("qemu-img", ["info", "-U", path])
            #expect(during.components(separatedBy: "in-use").count == 3)
            await graph.release(backend)
            #expect(!(try run("qemu-img", ["info", "-U", path])).contains("in-use"))
            return node.bitmaps.named.map { $0.dirtyByteCount }
        }
        #expect(counts == [12288, 0])
        #expect(try Self.infos(path) == ["off 65536 []", "on 4096 [\"auto\"]"])
        try run("qemu-img", ["check", "-q", path])
        let again = try await Self.open(path, readOnly: true) { _, node in node.bitmaps.named.map { $0.dirtyByteCount } }
        #expect(again == counts)
    }

    @Test("many bitmaps, large disks, every granularity and long names are stored, and QEMU finds the same", arguments: [512, 65536, 2 << 20])
    func manyAndLarge(clusterSize: Int) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a")
        let size = clusterSize == 512 ? 1 << 30 : 8 << 40
        try make(path, "\(size)", clusterSize: clusterSize)
        let names = (0..<150).map { "bitmap \($0) " + String(repeating: "é", count: $0 * 3) }
        let granularities = (0..<150).map { max(512 << ($0 % 23), size >> 27) }
        try await Self.open(path) { graph, node in
            let change = try await graph.beginBitmapChange(of: ["disk"])
            for (index, name) in names.enumerated() {
                let bitmap = try await graph.addBitmap(
                    named: name, to: "disk", granularity: granularities[index], isPersistent: true, isEnabled: index % 2 == 0)
                var random = SeededGenerator(seed: UInt64(index))
                switch index % 10 {
                case 0: bitmap.withBits { $0.setAll() }
                case 1: break
                default: for _ in 0..<5 { bitmap.set(Self.range(Int.random(in: 0..<size, using: &random), Int.random(in: 1...1 << 20, using: &random))) }
                }
            }
            await graph.end(change)
        }
        try run("qemu-img", ["check", "-q", path])
        let expected = zip(names, granularities).enumerated().map { "\($1.0) \($1.1) \($0 % 2 == 0 ? "[\"auto\"]" : "[]")" }.sorted()
        #expect(try Self.infos(path) == expected)
        // QEMU loads and stores them all again.
        try run("qemu-io", ["-c", "write 0 512", path])
        try await Self.open(path, readOnly: true) { _, node in
            for (index, name) in names.enumerated() {
                guard let bitmap = node.bitmaps.bitmap(named: name) else { throw ToolFailure(description: "\(name) is gone") }
                var expected = try HierarchicalBitmap(byteCount: size, granularity: granularities[index])
                var random = SeededGenerator(seed: UInt64(index))
                switch index % 10 {
                case 0: expected.setAll()
                case 1: break
                default: for _ in 0..<5 { expected.set(Self.range(Int.random(in: 0..<size, using: &random), Int.random(in: 1...1 << 20, using: &random))) }
                }
                if index % 2 == 0 { expected.set(Self.range(0, 512)) }
                #expect(bitmap.bits == expected, "\(name)")
            }
        }
    }

    @Test("an image grows and shrinks with its bitmaps, ours and QEMU's in turn")
    func resizes() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a")
        try make(path, "1M", clusterSize: 512)
        try run("qemu-img", ["bitmap", "--add", "-g", "512", path, "b"])
        for size in [4 << 20, 3 << 20 + 512, 64 << 20, 512] {
            try await Self.open(path) { graph, node in
                try await graph.resize("disk", to: size)
                #expect(node.bitmaps.bitmap(named: "b")?.byteCount == size)
            }
            try run("qemu-img", ["check", "-q", path])
            try run("qemu-img", ["resize", "-q", path, "+1M"])
            let byteCount = try await Self.open(path, readOnly: true) { _, node in node.bitmaps.bitmap(named: "b")?.byteCount }
            #expect(byteCount == size + 1 << 20)
        }
        #expect(try Self.infos(path) == ["b 512 [\"auto\"]"])
    }

    @Test("an extension finds room beside a long backing file name, goes when the last bitmap goes, and everything else in the header stays", arguments: [512, 65536])
    func header(clusterSize: Int) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a")
        let backing = scratch.file(String(repeating: "x", count: clusterSize == 512 ? 40 : 200))
        try run("qemu-img", ["create", "-q", "-f", "raw", backing, "1M"])
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(clusterSize)", "-b", backing, "-F", "raw", path])
        func text() throws -> String { try run("qemu-img", ["info", path]).split(separator: "\n").filter { $0.contains("backing") }.joined(separator: "\n") }
        let before = try text()
        for round in 0..<3 {
            try await Self.open(path) { graph, node in
                for name in ["one", "two"] {
                    let change = try await graph.beginBitmapChange(of: ["disk"])
                    try await graph.addBitmap(named: name, to: "disk", isPersistent: true)
                    await graph.end(change)
                }
            }
            #expect(try Self.infos(path).count == 2 && text() == before, "round \(round)")
            try run("qemu-img", ["check", "-q", path])
            try await Self.open(path) { graph, node in
                for bitmap in node.bitmaps.named {
                    let change = try await graph.beginBitmapChange(of: ["disk"])
                    try await graph.deleteBitmap(bitmap, of: "disk")
                    await graph.end(change)
                }
            }
            #expect(try Self.infos(path).isEmpty && text() == before, "round \(round)")
            try run("qemu-img", ["check", "-q", path])
            // QEMU complains about an extension that a program without bitmaps has left behind.
            #expect(!(try run("qemu-io", ["-c", "read 0 512", path])).contains("WARNING"))
        }
    }

    @Test("bitmaps that somebody has left in use are inconsistent until they are removed; others are not touched")
    func inconsistent() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a")
        try make(path, "64M")
        for name in ["bad", "good"] { try run("qemu-img", ["bitmap", "--add", path, name]) }
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        let directory = Self.directory(bytes)
        bytes[directory.offset + 15] |= 1
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        try await Self.open(path) { graph, node in
            #expect(node.bitmaps.named.map(\.isInconsistent) == [true, false])
            let backend = try await graph.makeBackend(named: "writer", on: "disk", PermissionGrant(used: [.consistentRead, .write], shared: .all))
            try await backend.writeBytes([1], at: 0)
            await graph.release(backend)
        }
        #expect(try Self.infos(path) == ["bad 65536 [\"in-use\", \"auto\"]", "good 65536 [\"auto\"]"])
        try await Self.open(path) { graph, node in
            guard let bad = node.bitmaps.bitmap(named: "bad") else { throw ToolFailure(description: "the bitmap is gone") }
            let change = try await graph.beginBitmapChange(of: ["disk"])
            try await graph.deleteBitmap(bad, of: "disk")
            await graph.end(change)
        }
        #expect(try Self.infos(path) == ["good 65536 [\"auto\"]"])
        try run("qemu-img", ["check", "-q", path])
    }

    /// Where the directory of an image with one or two bitmaps lies.
    private static func directory(_ bytes: [UInt8]) -> (header: Int, offset: Int, size: Int) {
        func number(_ position: Int, _ count: Int) -> Int { bytes[position..<position + count].reduce(0) { $0 << 8 | Int($1) } }
        var position = number(100, 4)
        while number(position, 4) != 0x2385_2875 { position += 8 + (number(position + 4, 4) + 7) / 8 * 8 }
        return (position, number(position + 24, 8), number(position + 16, 8))
    }

    @Test("a directory that cannot be is refused with one clear error, and an image without the autoclear bit has no bitmaps")
    func damaged() async throws {
        let scratch = try Scratch()
        let path = scratch.file("a")
        try make(path, "64M", clusterSize: 512)
        for name in ["one", "two"] { try run("qemu-img", ["bitmap", "--add", path, name]) }
        try run("qemu-io", ["-c", "write 0 1M", path])
        let sound = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        let (header, offset, size) = Self.directory(sound)
        #expect(size == 64)
        let damages: [(at: Int, bytes: [UInt8], message: String)] = [
            (header + 8, [0, 0, 0, 0], "zero bitmaps"), (header + 8, [0, 1, 0, 0], "exceeding the maximum"), (header + 8, [0, 0, 0, 3], "is needed"),
            (header + 8, [0, 0, 0, 1], "entries take"), (header + 16, [1], "exceeds the maximum supported size"),
            (header + 24, [0x7f], "invalid bitmap directory offset"), (header + 31, [1], "invalid bitmap directory offset"),
            (offset + 16, [2], "of the unknown type 2"), (offset + 15, [8], "unknown flags"), (offset + 17, [8], "constraints"), (offset + 17, [32], "constraints"),
            (offset + 18, [0, 0], "0 bytes"), (offset + 18, [0xff, 0xff], "is needed"), (offset + 20, [0xff, 0xff, 0xff, 0xff], "is needed"),
            (offset + 23, [8], "extra data"), (offset, [0, 0, 0, 0, 0, 0, 0, 0], "constraints"), (offset + 7, [1], "constraints"), (offset, [0x80], "constraints"),
            (offset + 8, [0xff, 0xff, 0xff, 0xff], "constraints"), (offset + 32 + 24, Array("one".utf8), "two bitmaps are called 'one'"),
        ]
        for damage in damages {
            var bytes = sound
            bytes.replaceSubrange(damage.at..<damage.at + damage.bytes.count, with: damage.bytes)
            try Data(bytes).write(to: URL(fileURLWithPath: path))
            var found = "it was opened"
            do { try await Self.open(path, readOnly: true) { _, _ in } } catch { found = "\(error)" }
            #expect(found.contains(damage.message), "\(damage)")
            #expect(!found.contains("\n"))
        }
        // Extra data that may be ignored is kept.
        var bytes = sound
        bytes[95] &= ~1
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        #expect(try await Self.open(path) { _, node in node.bitmaps.named.count } == 0)
    }

    /// What one byte can do to the table of a bitmap: whether it lies in the directory's entry, where there, and what it becomes.
    enum TableDamage: CaseIterable {
        case offset, size, entryBeyondEnd, entryJustBeyondEnd, reservedBit

        func apply(_ bytes: inout [UInt8], directory: Int) {
            func number(_ position: Int) -> Int { bytes[position..<position + 8].reduce(0) { $0 << 8 | Int($1) } }
            let table = number(directory)
            switch self {
            case .offset: bytes[directory + 2] = 2
            case .size: bytes[directory + 11] &+= 1
            case .entryBeyondEnd: bytes[table + 2] = 2
            case .entryJustBeyondEnd:
                // Where the next cluster would be that anybody takes.
                let end = bytes.count.roundedUp(to: 65536)
                for index in 0..<8 { bytes[table + index] = UInt8(truncatingIfNeeded: end >> (56 - 8 * index)) }
            case .reservedBit: bytes[table + 7] = 2
            }
        }
    }

    /// An image with 256 KiB of data, and two bitmaps that know of them, the first of them damaged.
    private func makeDamaged(_ path: String, _ damage: TableDamage) throws {
        try make(path, "64M")
        for name in ["bad", "good"] { try run("qemu-img", ["bitmap", "--add", path, name]) }
        try run("qemu-io", ["-c", "write -P 5 0 256k", path])
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        damage.apply(&bytes, directory: Self.directory(bytes).offset)
        try Data(bytes).write(to: URL(fileURLWithPath: path))
    }

    @Test("a bitmap whose table cannot be right locks nobody out: it is inconsistent for ever, can be removed, and frees nothing", arguments: TableDamage.allCases)
    func unreadable(damage: TableDamage) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a")
        try makeDamaged(path, damage)
        let before = try Data(contentsOf: URL(fileURLWithPath: path))
        // Reading changes nothing.
        try await Self.open(path, readOnly: true) { graph, node in
            #expect(node.bitmaps.named.map(\.isInconsistent) == [true, false])
            let backend = try await graph.makeBackend(named: "reader", on: "disk", PermissionGrant(used: .consistentRead, shared: .all))
            #expect(try await backend.readBytes(at: 0, 4096) == [UInt8](repeating: 5, count: 4096))
            await graph.release(backend)
        }
        #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == before)
        // Writing marks it, and gives up its table: the cluster that it names may be one of these.
        try await Self.open(path) { graph, _ in
            let backend = try await graph.makeBackend(named: "writer", on: "disk", PermissionGrant(used: [.consistentRead, .write], shared: .all))
            try await backend.writeBytes([UInt8](repeating: 6, count: 1 << 20), at: 1 << 20)
            await graph.release(backend)
        }
        try await Self.open(path) { graph, node in
            #expect(node.bitmaps.named.map(\.isInconsistent) == [true, false])
            #expect(node.bitmaps.bitmap(named: "good")?.dirtyByteCount == 1280 << 10)
            let backend = try await graph.makeBackend(named: "sizer", on: "disk", PermissionGrant(used: [.consistentRead, .write, .resize], shared: .all))
            let failure = await #expect(throws: BlockError.self) { try await backend.resize(to: 128 << 20) }
            #expect(failure?.message == "Bitmap 'bad' is inconsistent and cannot be used")
            guard let bad = node.bitmaps.bitmap(named: "bad") else { throw ToolFailure(description: "the bitmap is gone") }
            let change = try await graph.beginBitmapChange(of: ["disk"])
            try await graph.deleteBitmap(bad, of: "disk")
            await graph.end(change)
            try await backend.resize(to: 128 << 20)
            await graph.release(backend)
        }
        #expect(try Self.infos(path) == ["good 65536 [\"auto\"]"])
        // Leaks are what is left of it, and nothing else.
        try run("qemu-img", ["check", "-q", "-r", "leaks", path])
        try run("qemu-img", ["check", "-q", path])
        #expect(try run("qemu-io", ["-r", "-c", "read -P 5 0 256k", "-c", "read -P 6 1M 1M", path]).contains("failed") == false)
    }

    @Test("a repair marks such a bitmap before the file grows over what it names", arguments: [TableDamage.entryJustBeyondEnd, .entryBeyondEnd])
    func unreadableInRepair(damage: TableDamage) async throws {
        let scratch = try Scratch()
        let path = scratch.file("a")
        try makeDamaged(path, damage)
        _ = try await onContext { context in try await RepairTests.repair(imageOptions(path), [.leaks, .errors], context) }
        try await Self.open(path, readOnly: true) { _, node in #expect(node.bitmaps.named.map(\.isInconsistent) == [true, false]) }
    }
}
