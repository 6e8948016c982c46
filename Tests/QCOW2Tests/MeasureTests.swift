import BlockGraph
import Foundation
import QCOW2
import QCOW2Testing
import StorageSchema
import StrataBase
import StrataTesting
import Testing

@Suite("measuring qcow2 images")
struct MeasureTests {
    private static func theirs(_ arguments: [String]) throws -> [String: Int] {
        let text = try run("qemu-img", ["measure", "--output=json", "-O", "qcow2"] + arguments)
        return try JSONDecoder().decode([String: Int].self, from: Data(text.utf8))
    }

    private static func numbers(_ measure: ImageMeasure) -> [String: Int] {
        var numbers = ["required": measure.required, "fully-allocated": measure.fullyAllocated]
        numbers["bitmaps"] = measure.bitmaps
        return numbers
    }

    @Test("an empty disk takes what QEMU says, for random sizes and options", arguments: 0..<6)
    func empty(seed: UInt64) async throws {
        var random = SeededGenerator(seed: seed)
        for _ in 0..<25 {
            let size = Int.random(in: 0...(1 << Int.random(in: 0...40, using: &random)), using: &random)
            var options = BlockdevCreateOptionsQcow2(file: .reference(""), size: size)
            var text: [String] = []
            let bits = Int.random(in: 9...21, using: &random)
            options.clusterSize = 1 << bits
            text.append("cluster_size=\(1 << bits)")
            if bits >= 14, Bool.random(using: &random) {
                options.extendedL2 = true
                text.append("extended_l2=on")
            }
            let refcountBits = 1 << Int.random(in: 0...6, using: &random)
            options.refcountBits = refcountBits
            text.append("refcount_bits=\(refcountBits)")
            let mode = PreallocMode.allCases.randomElement(using: &random) ?? .off
            options.preallocation = mode
            text.append("preallocation=\(mode.rawValue)")
            let arguments = ["-o", text.joined(separator: ","), "--size", String(size)]
            do throws(BlockError) {
                let ours = try await QCOW2Driver.measure(options)
                #expect(Self.numbers(ours) == (try? Self.theirs(arguments)), "seed \(seed): \(arguments)")
            } catch {
                let message = try run("qemu-img", ["measure", "-O", "qcow2"] + arguments, allowedStatus: [1])
                #expect(message == "qemu-img: \(error.message)\n", "\(arguments)")
            }
        }
    }

    @Test("a chain takes what QEMU says, for random contents and cluster sizes", arguments: 0..<4)
    func source(seed: UInt64) async throws {
        let scratch = try Scratch()
        var random = SeededGenerator(seed: seed)
        let test = FeatureMatrixTests.Case(clusterSize: 65536, hasSubclusters: seed % 2 == 0, depth: Int(seed % 3))
        var model = test.model(seed: seed)
        let path = try FeatureMatrixTests.make(test, scratch, &model)
        if seed == 3 {
            try run("qemu-img", ["bitmap", "--add", path, "b0"])
            try run("qemu-img", ["bitmap", "--add", "-g", "512", path, "a longer name"])
        }
        // Small clusters tell whether holes in the host file are looked for inside clusters, which QEMU does by a guess.
        let sizes = (0..<6).map { _ in 1 << Int.random(in: 16...21, using: &random) }
        let bitmaps = seed == 3 ? [MeasuredBitmap(granularity: 65536, nameByteCount: 2), MeasuredBitmap(granularity: 512, nameByteCount: 13)] : []
        try await onContext { context in
            try await withImage(imageOptions(path, readOnly: true), context) { disk in
                for size in sizes {
                    for extra in ["", ",backing_file=b,backing_fmt=raw", ",preallocation=falloc"] {
                        var options = BlockdevCreateOptionsQcow2(file: .reference(""), size: 0, clusterSize: size)
                        if extra.contains("backing") { options.backingFile = "b" }
                        if extra.contains("falloc") { options.preallocation = .falloc }
                        let ours = try await QCOW2Driver.measure(options, source: disk, bitmaps: bitmaps)
                        let theirs = try Self.theirs(["-o", "cluster_size=\(size)\(extra)", "-f", "qcow2", path])
                        #expect(Self.numbers(ours) == theirs, "seed \(seed), \(size)\(extra)")
                    }
                }
            }
        }
    }
}
