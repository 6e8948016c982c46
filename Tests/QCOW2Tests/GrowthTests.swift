import BlockGraph
import Foundation
import QCOW2Testing
import StorageSchema
import StrataBase
import Testing

@Suite("qcow2 images that grow with preallocation")
struct GrowthTests {
    struct Case: Sendable, CustomTestStringConvertible {
        var options: String
        var mode: PreallocMode
        var hasBacking = false
        var testDescription: String { "\(options), \(mode.rawValue)\(hasBacking ? ", with a backing file" : "")" }
    }

    static let cases: [Case] = ["cluster_size=4k", "cluster_size=64k", "extended_l2=on", "data_file=DATA", "data_file=DATA,data_file_raw=on"].flatMap { options in
        [PreallocMode.off, .metadata, .falloc, .full].map { Case(options: options, mode: $0) }
    } + [.off, .metadata].map { Case(options: "extended_l2=on", mode: $0, hasBacking: true) }

    @Test("the new part reads as zeroes, the old part stays, and as much is allocated as by QEMU", arguments: cases)
    func grows(test: Case) async throws {
        let scratch = try Scratch()
        let (oldSize, newSize) = ((1 << 20) + 3 * 512, (5 << 20) + 512)
        try run("qemu-img", ["create", "-q", "-f", "raw", scratch.file("base.raw"), "3M"])
        try run("qemu-io", ["-f", "raw", "-c", "write -P 9 0 3M", scratch.file("base.raw")])
        func make(_ name: String) throws -> String {
            let path = scratch.file(name + ".qcow2")
            let options = test.options.replacingOccurrences(of: "DATA", with: scratch.file(name + ".raw"))
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", options] + (test.hasBacking ? ["-b", scratch.file("base.raw"), "-F", "raw"] : []) + [path, String(oldSize)])
            try run("qemu-io", ["-f", "qcow2", "-c", "write -P 1 64k 100k", "-c", "write -P 2 1M 1k", path])
            return path
        }
        let (ours, theirs) = (try make("ours"), try make("theirs"))
        try run("qemu-img", ["resize", "-q", "--preallocation=\(test.mode.rawValue)", theirs, String(newSize)])
        try await onContext { context in
            try await withImage(imageOptions(ours), context) { disk in
                try await disk.resize(to: newSize, preallocation: test.mode)
                #expect(disk.length == newSize)
            }
        }
        #expect(try run("qemu-img", ["check", ours]).contains("No errors were found"))
        try run("qemu-img", ["compare", ours, theirs])
        // Where the clusters lie, and which of them are holes in the host file, is each tool's own affair.
        func shape(_ path: String) throws -> [[Int]] {
            var merged: [[Int]] = []
            for run in FeatureMatrixTests.withoutHoles(try FeatureMatrixTests.qemuMap(path)) {
                let facts = [run.depth, run.present ? 1 : 0]
                if let last = merged.last, Array(last[2...]) == facts { merged[merged.count - 1][1] += run.length } else { merged.append([run.start, run.length] + facts) }
            }
            return merged
        }
        if !test.hasBacking { #expect(try shape(ours) == shape(theirs)) }
    }

    @Test("an image with a data file shrinks and grows again without showing what was there")
    func shrinks() async throws {
        for options in ["data_file=DATA", "data_file=DATA,data_file_raw=on", "extended_l2=on"] {
            let scratch = try Scratch()
            let path = scratch.file("a.qcow2")
            try run("qemu-img", ["create", "-q", "-f", "qcow2", "-o", options.replacingOccurrences(of: "DATA", with: scratch.file("a.raw")), path, "2M"])
            try run("qemu-io", ["-f", "qcow2", "-c", "write -P 5 0 2M", path])
            try await onContext { context in
                try await withImage(imageOptions(path), context) { disk in
                    try await disk.resize(to: (1 << 20) + 512 * 3)
                    try await disk.resize(to: 3 << 20)
                    let all = try await disk.readBytes(at: 0, 3 << 20)
                    let end = (1 << 20) + 512 * 3
                    #expect(all[..<end].allSatisfy { $0 == 5 } && all[end...].allSatisfy { $0 == 0 }, "\(options)")
                }
            }
            #expect(try run("qemu-img", ["check", path]).contains("No errors were found"))
            if options.contains("raw=on") { try run("qemu-img", ["compare", "-f", "raw", "-F", "qcow2", scratch.file("a.raw"), path]) }
        }
    }
}
