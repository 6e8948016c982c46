import BlockGraph
import Foundation
import QCOW2Testing
import StrataBase
import StrataTesting
import Testing

/// Cluster sizes, versions and backing depths, each with QEMU's tools as the other side.
@Suite("qcow2 against QEMU")
struct MatrixTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let clusterSize: Int
        let version: Int
        let depth: Int
        var testDescription: String { "\(clusterSize) bytes per cluster, version \(version), \(depth) backing files" }
        /// Bytes of the top layer; not a multiple of the cluster size.
        var size: Int { max(1 << 20, min(clusterSize * 5, 12 << 20)) + 3 * 512 }
    }

    static let cases: [Case] = [512, 4096, 65536, 2 << 20].flatMap { size in
        [2, 3].flatMap { version in (0...3).map { Case(clusterSize: size, version: version, depth: $0) } }
    }

    /// Makes a chain with QEMU's tools, random data in every layer. Shorter layers below longer ones and the reverse.
    static func makeChain(_ test: Case, _ scratch: Scratch, _ model: inout DiskModel, seed: UInt64) throws -> String {
        var previous: String?
        for level in 0...test.depth {
            let name = scratch.file("layer\(level).qcow2")
            let size = level == test.depth ? test.size : (test.size / 4 * (2 + (level + Int(seed)) % 4)).roundedDown(to: 512)
            var arguments = ["create", "-q", "-f", "qcow2", "-o", "cluster_size=\(test.clusterSize),compat=\(test.version == 3 ? "1.1" : "0.10")"]
            if let previous { arguments += ["-b", previous, "-F", "qcow2"] }
            try run("qemu-img", arguments + [name, String(size)])
            var visible = model.bytes
            if size < visible.count { visible.replaceSubrange(size..<visible.count, with: [UInt8](repeating: 0, count: visible.count - size)) }
            var commands: [String] = []
            for _ in 0..<6 {
                let start = Int.random(in: 0..<(size / 512), using: &model.random) * 512
                let count = min(Int.random(in: 1...max(8, test.clusterSize / 256), using: &model.random) * 512, size - start)
                let pattern = UInt8.random(in: 1...255, using: &model.random)
                if test.version == 3, Int.random(in: 0..<4, using: &model.random) == 0 {
                    commands += ["-c", "write -z \(start) \(count)"]
                    fill(&visible, start, count, 0)
                } else {
                    commands += ["-c", "write -P \(pattern) \(start) \(count)"]
                    fill(&visible, start, count, pattern)
                }
            }
            try run("qemu-io", ["-f", "qcow2"] + commands + [name])
            model.bytes = visible
            previous = name
        }
        return previous ?? ""
    }

    static func fill(_ bytes: inout [UInt8], _ start: Int, _ count: Int, _ value: UInt8) {
        let end = min(bytes.count, start + count)
        if start < end { bytes.replaceSubrange(start..<end, with: [UInt8](repeating: value, count: end - start)) }
    }

    @Test("what QEMU has written reads the same through us", arguments: cases)
    func readsQEMU(test: Case) async throws {
        let scratch = try Scratch()
        var model = DiskModel(size: test.size, clusterSize: test.clusterSize, seed: UInt64(test.clusterSize + test.depth))
        let path = try Self.makeChain(test, scratch, &model, seed: 1)
        let expected = model.bytes
        try await onContext { context in
            try await withImage(imageOptions(path, readOnly: true), context) { disk in
                #expect(disk.length == test.size)
                let all = try await disk.readBytes(at: 0, test.size)
                #expect(firstDifference(all, expected) == nil)
                var random = SeededGenerator(seed: 5)
                for _ in 0..<50 {
                    let start = Int.random(in: 0..<test.size, using: &random)
                    let count = Int.random(in: 1...min(100_000, test.size - start), using: &random)
                    let part = try await disk.readBytes(at: start, count)
                    #expect(firstDifference(part, Array(expected[start..<(start + count)])) == nil)
                }
            }
        }
    }

    @Test("what we write over QEMU's image is what QEMU reads, and its check finds nothing", arguments: cases)
    func writesForQEMU(test: Case) async throws {
        let scratch = try Scratch()
        let seed = UInt64(test.clusterSize * 10 + test.version * 4 + test.depth)
        var model = DiskModel(size: test.size, clusterSize: test.clusterSize, seed: seed)
        let path = try Self.makeChain(test, scratch, &model, seed: 2)
        model.discardsToZero = test.version == 3 || test.depth == 0
        let start = model
        let steps = test.clusterSize > 65536 ? 40 : 100
        let after = try await onContext { context in
            var model = start
            // Reopened once in between: what was closed is what is found.
            for _ in 0..<2 {
                let before = model
                // A cache of few slices, so that they are evicted and written back in the middle.
                model = try await withImage(imageOptions(path, l2CacheSize: 8192), context) { disk in
                    var model = before
                    var history: [String] = []
                    do {
                        for _ in 0..<steps { history.append(try await model.step(disk)) }
                    } catch { throw ToolFailure(description: "seed \(seed): \(error) after \(history.suffix(12))") }
                    let all = try await disk.readBytes(at: 0, test.size)
                    if let difference = firstDifference(all, model.bytes) { throw ToolFailure(description: "seed \(seed): final read differs \(difference)") }
                    return model
                }
            }
            return model
        }
        try run("qemu-img", ["check", path])
        let raw = scratch.file("out.raw")
        try run("qemu-img", ["convert", "-O", "raw", path, raw])
        let read = [UInt8](try Data(contentsOf: URL(fileURLWithPath: raw)))
        #expect(firstDifference(read, after.bytes) == nil)
    }
}
