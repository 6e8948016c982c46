import BlockGraph
import Foundation
import IOCore
import QCOW2Testing
import StorageSchema
import StrataBase
import Testing

/// Bitmaps beside everything else that an image may have, and under operations that move tables about.
@Suite("bitmaps in qcow2 images with other features")
struct BitmapFeatureTests {
    static let size = 2 << 20
    static let granularity = 4096

    /// The bits of each bitmap, by name; nil for one that is not to be believed.
    private static func bits(_ path: String) async throws -> [String: [Bool]?] {
        try await onContext { context in
            try await withImage(imageOptions(path, readOnly: true), context) { disk in
                var found: [String: [Bool]?] = [:]
                for bitmap in disk.node.bitmaps.named {
                    let bits = bitmap.bits
                    let dirty = stride(from: 0, to: disk.length, by: granularity).map { bits.isDirty(at: GuestOffset($0)) }
                    found[bitmap.name ?? ""] = .some(bitmap.isInconsistent ? nil : dirty)
                }
                return found
            }
        }
    }

    /// An image with two bitmaps by QEMU, which has written one part, and we another.
    private static func make(_ options: String, _ scratch: Scratch) async throws -> (path: String, bits: [Bool]) {
        let path = scratch.file("a.qcow2")
        let filled = options.replacingOccurrences(of: "DATA", with: scratch.file("data.raw"))
        try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", filled, path, "\(size)"])
        for name in ["one", "two"] { try run("qemu-img", ["bitmap", "--add", "-g", "\(granularity)", path, name]) }
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 3 64k 20k", path])
        try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in
                try await disk.writeBytes([UInt8](repeating: 4, count: 10_000), at: 1 << 20)
                try await disk.writeZeroes(GuestRange(GuestOffset(600 << 10), byteCount: 8192), flags: .mayUnmap)
            }
        }
        var expected = [Bool](repeating: false, count: size / granularity)
        for range in [65536..<86016, 1 << 20..<(1 << 20) + 10_000, 600 << 10..<608 << 10] {
            for bit in range.lowerBound / granularity...(range.upperBound - 1) / granularity { expected[bit] = true }
        }
        return (path, expected)
    }

    @Test("with every feature, bits by QEMU and by us are kept, and QEMU finds nothing wrong", arguments: [
        "cluster_size=64k", "data_file=DATA", "data_file=DATA,data_file_raw=on", "extended_l2=on,cluster_size=16k", "extended_l2=on,data_file=DATA",
        "compression_type=zstd,cluster_size=512", "refcount_bits=1", "refcount_bits=64,cluster_size=512", "lazy_refcounts=on", "preallocation=full,cluster_size=4k",
    ])
    func features(options: String) async throws {
        let scratch = try Scratch()
        let (path, expected) = try await Self.make(options, scratch)
        #expect(try await Self.bits(path) == ["one": expected, "two": expected])
        #expect(try run("qemu-img", ["check", path]).contains("No errors"))
        // QEMU goes on with them, and we after QEMU.
        try run("qemu-io", ["-f", "qcow2", "-c", "write -P 5 1600k 4k", path])
        var more = expected
        more[(1600 << 10) / Self.granularity] = true
        #expect(try await Self.bits(path) == ["one": more, "two": more])
    }

    @Test("amending keeps them: refcounts of another width, lazy refcounts, a larger disk", arguments: ["cluster_size=512", "cluster_size=64k", "cluster_size=16k,extended_l2=on"])
    func amended(options: String) async throws {
        let scratch = try Scratch()
        let (path, expected) = try await Self.make(options, scratch)
        let changes: [@Sendable (inout ImageAmendment) -> Void] = [{ $0.refcountBits = 64 }, { $0.lazyRefcounts = true }, { $0.refcountBits = 1 }, { ($0.refcountBits, $0.lazyRefcounts) = (8, false) }]
        for (number, change) in changes.enumerated() {
            try await AmendTests.amend(imageOptions(path), change)
            #expect(try run("qemu-img", ["check", path]).contains("No errors"), "amendment \(number)")
            #expect(try await Self.bits(path) == ["one": expected, "two": expected], "amendment \(number)")
        }
        try await AmendTests.amend(imageOptions(path)) { $0.size = Self.size + (256 << 10) }
        #expect(try run("qemu-img", ["check", path]).contains("No errors"))
        let grown = try await Self.bits(path)
        // What a disk has grown by is dirty.
        #expect(grown["one"] == expected + [Bool](repeating: true, count: (256 << 10) / Self.granularity))
        let refused = await #expect(throws: BlockError.self) { try await AmendTests.amend(imageOptions(path)) { ($0.version, $0.refcountBits) = (.v2, 16) } }
        #expect(refused?.message.contains(options.contains("extended") ? "incompatible features" : "persistent bitmaps") == true, "\(String(describing: refused))")
        // QEMU's amend of what we have made.
        try run("qemu-img", ["amend", "-o", "refcount_bits=16", path])
        #expect(try await Self.bits(path)["two"] == grown["two"])
    }

    @Test("a new image of ours has room for bitmaps in its header, whatever its clusters, and one that was amended to version 3 too", arguments: [512, 1024, 65536])
    func room(clusterSize: Int) async throws {
        let scratch = try Scratch()
        for version in [BlockdevQcow2Version.v3, .v2] {
            let path = scratch.file("\(version).qcow2")
            try await CreateTests.create(path) { ($0.clusterSize, $0.version) = (clusterSize, version) }
            if version == .v2 { try await AmendTests.amend(imageOptions(path)) { $0.version = .v3 } }
            try await onContext { context in
                try await withGraph(imageOptions(path), context) { graph, _ in
                    _ = try await graph.addBitmap(named: "b", to: "disk", isPersistent: true)
                }
            }
            #expect(try await Self.bits(path).keys.sorted() == ["b"])
            #expect(try run("qemu-img", ["check", path]).contains("No errors"))
        }
    }

    @Test("a repair counts what bitmaps take, and gives none of it to anybody", arguments: [CheckRepair.leaks, [.leaks, .errors]], ["cluster_size=512", "data_file=DATA"])
    func repaired(repair: CheckRepair, options: String) async throws {
        let scratch = try Scratch()
        let (path, expected) = try await Self.make(options, scratch)
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        func word(_ offset: Int) -> Int { bytes[offset..<offset + 8].reduce(0) { $0 << 8 | Int($1) } }
        let block = word(word(48))
        let clusterSize = 1 << bytes[23]
        if repair.contains(.errors) {
            // All refcounts are gone.
            for index in 0..<clusterSize { bytes[block + index] = 0 }
        } else {
            // A cluster at the end is said to be in use.
            let last = bytes.count / clusterSize
            bytes += [UInt8](repeating: 0, count: clusterSize)
            bytes[block + 2 * last + 1] = 1
        }
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let report = try await onContext { context in try await RepairTests.repair(imageOptions(path), repair, context) }
        #expect(report.corruptions == 0 && report.leaks == 0 && report.checkErrors == 0, "\(report)")
        #expect(try run("qemu-img", ["check", path]).contains("No errors"))
        #expect(try await Self.bits(path) == ["one": expected, "two": expected])
        // New data goes elsewhere.
        try await onContext { context in
            try await withImage(imageOptions(path), context) { disk in try await disk.writeBytes([UInt8](repeating: 9, count: 100_000), at: 300_000) }
        }
        #expect(try run("qemu-img", ["check", path]).contains("No errors"))
        let found = try await Self.bits(path)
        #expect(zip(expected, (found["one"] ?? nil) ?? []).allSatisfy { !$0 || $1 })
    }
}
