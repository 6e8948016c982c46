import Foundation
import StrataTesting
import Testing

@Suite("converting to compressed images")
struct CompressedConvertTests {
    static let layouts = ["cluster_size=512", "cluster_size=4k", "cluster_size=64k", "cluster_size=2M"].flatMap { layout in
        ["zlib", "zstd"].map { "\(layout),compression_type=\($0)" }
    }

    /// Text-like data, with stretches of zeros and of noise.
    static func contents(_ count: Int, seed: UInt64) -> [UInt8] {
        var generator = SeededGenerator(seed: seed)
        let words = (0..<200).map { _ in (0..<Int.random(in: 2...9, using: &generator)).map { _ in UInt8.random(in: 97...122, using: &generator) } }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 70000)
        while bytes.count < count {
            switch Int.random(in: 0..<8, using: &generator) {
            case 0: bytes += [UInt8](repeating: 0, count: Int.random(in: 1...60000, using: &generator))
            case 1: bytes += randomBytes(Int.random(in: 1...9000, using: &generator), using: &generator)
            default: for _ in 0..<2000 { bytes += words[Int.random(in: 0..<words.count, using: &generator)] + [32] }
            }
        }
        bytes.removeLast(bytes.count - count)
        return bytes
    }

    @Test("QEMU reads it, finds it clean, and its own is not smaller", arguments: layouts)
    func convert(layout: String) throws {
        let folder = try TemporaryFolder()
        let disk = Self.contents(3 << 20 | 512, seed: runSeed)
        try folder.write(disk, to: "source.raw")
        try Strata.mustImg("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", layout, "source.raw", "ours.qcow2", in: folder)
        try mustRun("qemu-img", ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", layout, "source.raw", "theirs.qcow2"], in: folder.url)
        let ours = try QEMU.mustFindClean("ours.qcow2", in: folder)
        let theirs = try QEMU.mustFindClean("theirs.qcow2", in: folder)
        #expect(firstDifference(try QEMU.contents(of: "ours.qcow2", in: folder), disk) == nil, "seed \(runSeed)")
        for key in ["allocated-clusters", "total-clusters"] { #expect(ours[key] == theirs[key], "\(key)") }
        // Tables are not compressed, and there is one cluster between one layout of them and another; the streams are not longer.
        let (our, their) = (ours["image-end-offset"]?.integer ?? .max, theirs["image-end-offset"]?.integer ?? 0)
        let cluster = layout.contains("=2M") ? 2 << 20 : layout.contains("=64k") ? 65536 : 4096
        #expect(our <= their + max(cluster, their / 100), "\(our) bytes, QEMU's \(their)")
        try Strata.mustImg("check", "-f", "qcow2", "ours.qcow2", in: folder)
        try Strata.mustImg("convert", "-f", "qcow2", "-O", "raw", "ours.qcow2", "back.raw", in: folder)
        #expect(firstDifference(try folder.read("back.raw"), disk) == nil, "seed \(runSeed)")
    }

    @Test("an overlay gets whole clusters, and QEMU reads through both", arguments: ["-S 4k", "-S 0"], ["-m 1", "-m 8"])
    func overlay(sparse: String, workers: String) throws {
        let folder = try TemporaryFolder()
        let size = 10 << 20 | 512
        let base = Self.contents(size, seed: runSeed &+ 5)
        try folder.write(base, to: "base.raw")
        try mustRun("qemu-img", ["create", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "base.raw", "-F", "raw", "top.qcow2"], in: folder.url)
        var generator = SeededGenerator(seed: runSeed &+ 6)
        let writes = (0..<60).map { _ in
            let offset = Int.random(in: 0..<(size - 70000), using: &generator), count = Int.random(in: 1...60000, using: &generator)
            return generator.next() % 4 == 0 ? "write -z \(offset & ~511) \(count & ~511 | 512)" : "write -P \(generator.next() % 256) \(offset) \(count)"
        }
        try mustRun("qemu-io", ["-f", "qcow2"] + writes.flatMap { ["-c", $0] } + ["top.qcow2"], in: folder.url)
        let arguments = ["convert", "-c", "-f", "qcow2", "-O", "qcow2", "-B", "base.raw", "-F", "raw"] + sparse.split(separator: " ").map(String.init) + workers.split(separator: " ").map(String.init)
        try mustRun(Strata.binary, ["img"] + arguments + ["top.qcow2", "ours.qcow2"], in: folder.url)
        try QEMU.mustFindClean("ours.qcow2", in: folder)
        let expected = try QEMU.contents(of: "top.qcow2", in: folder)
        #expect(firstDifference(try QEMU.contents(of: "ours.qcow2", in: folder), expected) == nil, "seed \(runSeed)")
    }

    @Test("several sources, and an existing target that goes on behind them, are compressed as far as whole clusters go")
    func existingTarget() throws {
        let folder = try TemporaryFolder()
        let a = Self.contents(100_000 / 512 * 512, seed: runSeed &+ 1), b = Self.contents(1 << 20 | 1536, seed: runSeed &+ 2)
        try folder.write(a, to: "a.raw")
        try folder.write(b, to: "b.raw")
        try mustRun("qemu-img", ["create", "-f", "qcow2", "target.qcow2", "4M"], in: folder.url)
        try mustRun("qemu-io", ["-f", "qcow2", "-c", "write -P 9 0 4M", "target.qcow2"], in: folder.url)
        try Strata.mustImg("convert", "-c", "-n", "-f", "raw", "-O", "qcow2", "a.raw", "b.raw", "target.qcow2", in: folder)
        try QEMU.mustFindClean("target.qcow2", in: folder)
        let expected = a + b + [UInt8](repeating: 9, count: 4 << 20 - a.count - b.count)
        #expect(firstDifference(try QEMU.contents(of: "target.qcow2", in: folder), expected) == nil, "seed \(runSeed)")
    }

    @Test("what cannot be compressed is refused as QEMU refuses it", arguments: [
        ["-O", "raw"], ["-O", "qcow2", "-o", "preallocation=metadata"], ["-O", "qcow2", "-o", "compat=0.10,compression_type=zstd"], ["-O", "qcow2", "-C"],
    ])
    func refusals(arguments: [String]) throws {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 1, count: 1 << 20), to: "a.raw")
        let ours = try run(Strata.binary, ["img", "convert", "-c", "-f", "raw"] + arguments + ["a.raw", "b"], in: folder.url)
        let theirs = try run("qemu-img", ["convert", "-c", "-f", "raw"] + arguments + ["a.raw", "b"], in: folder.url)
        #expect(ours.ending == .exited(1) && theirs.ending == .exited(1))
        #expect(ours.errorText.split(separator: ":", maxSplits: 1).last == theirs.errorText.split(separator: ":", maxSplits: 1).last)
    }
}
