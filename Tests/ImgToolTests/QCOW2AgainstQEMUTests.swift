import Foundation
import StrataTesting
import Testing

/// qcow2 images that we make must be fine to QEMU and the reverse.
@Suite("qcow2 images made, described, checked and converted as qemu-img does it", .serialized)
struct QCOW2AgainstQEMUTests {
    @Test("create says the same, and what it makes is described and judged the same by qemu-img", arguments: [
        "10M", "-o cluster_size=4k,compat=0.10 1G", "-o cluster_size=512 10M", "-o cluster_size=2M 100G", "-o lazy_refcounts=on 1M",
        "-o refcount_bits=1 10M", "-o refcount_bits=64 10M", "-o preallocation=metadata 10M", "-o preallocation=full 3M", "0", "4097",
        "-b base.raw -F raw", "-b base.raw -F raw 20M", "-o backing_file=base.raw,backing_fmt=raw",
        // Refused, before or after the announcement.
        "-o compat=0.10,lazy_refcounts=on 1G", "-o cluster_size=3 1M", "-o refcount_bits=3 1M", "-o refcount_bits=8,compat=v2 1M",
        "-o preallocation=foo 1M", "-o compat=1.2 1M", "7E", "-F raw 1M", "-b base.raw", "-b nosuch -F raw", "-b base.raw -F qcow2", "-b base.raw -F foo",
        "-u -b nosuch 1M", "-u -b nosuch -F foo 1M", "-b new.qcow2 -F raw", "-o lazy_refcounts=maybe 1M", "-o size=1M 1M",
    ])
    func create(options: String) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([["create", "-q", "base.raw", "5M"]])
        let words = options.split(separator: " ").map(String.init)
        let size = words.last.flatMap { $0.first?.isNumber == true ? $0 : nil }
        let arguments = ["create", "-f", "qcow2"] + words.dropLast(size == nil ? 0 : 1) + ["new.qcow2"] + (size.map { [$0] } ?? [])
        let theirs = try pair.runTheirs(arguments)
        #expect(try pair.runOurs(arguments) == theirs)
        let exists = FileManager.default.fileExists(atPath: pair.ours.appendingPathComponent("new.qcow2").path)
        #expect(exists == (theirs.status == 0), "a failed create leaves nothing behind")
        guard exists else { return }
        let check = try ToolPair.run(ToolPair.qemu, ["check", "new.qcow2"], in: pair.ours)
        #expect(check.status == 0, "\(check)")
        func description(in directory: URL) throws -> [String] {
            // What an image takes on disk may differ by its last, partial cluster.
            try ToolPair.run(ToolPair.qemu, ["info", "new.qcow2"], in: directory).output.split(separator: "\n").map(String.init)
                .filter { !$0.contains("disk size") && !$0.contains("file length") }
        }
        #expect(try description(in: pair.ours) == description(in: pair.theirs))
    }

    private static let images: [[String]] = [
        ["create", "-q", "-f", "qcow2", "b.qcow2", "10M"], ["io", "-c", "write -P 1 0 1M", "-c", "write -P 2 5M 100k", "b.qcow2"],
        ["create", "-q", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", "c.qcow2"], ["io", "-c", "write -P 3 1M 64k", "c.qcow2"],
        ["create", "-q", "-f", "qcow2", "-b", "c.qcow2", "-F", "qcow2", "cc.qcow2"],
        ["create", "-q", "-f", "qcow2", "-o", "compat=0.10,cluster_size=4k", "v2.qcow2", "64M"],
        ["create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on,refcount_bits=8", "lazy.qcow2", "3G"],
        ["create", "-q", "-f", "qcow2", "-u", "-b", "gone", "-F", "raw", "gone.qcow2", "1M"],
        ["create", "-q", "-f", "qcow2", "packed.qcow2", "10M"], ["io", "-c", "write -c -P 3 0 1M", "packed.qcow2"],
        ["create", "-q", "-f", "qcow2", "zero.qcow2", "10M"], ["io", "-c", "write -P 3 0 1M", "-c", "write -z 64k 256k", "zero.qcow2"],
        ["create", "-q", "-f", "qcow2", "scattered.qcow2", "10M"],
        ["io", "-c", "write 9M 64k", "-c", "write 3M 64k", "-c", "write 1M 64k", "-c", "write 7M 64k", "scattered.qcow2"],
        ["create", "-q", "-f", "raw", "a.raw", "1M"],
    ]

    @Test("info and check")
    func infoAndCheck() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare(Self.images)
        for name in ["b", "c", "cc", "v2", "lazy", "packed", "zero", "scattered", "gone"] {
            var commands = [["info"], ["info", "--output=json"], ["info", "-U"]]
            if name != "gone" { commands += [["check"], ["check", "--output=json"], ["check", "-q"], ["info", "--backing-chain"], ["info", "-b", "--output=json"]] }
            for command in commands {
                let arguments = command + ["\(name).qcow2"]
                #expect(try pair.runOurs(arguments) == pair.runTheirs(arguments), "qemu-img \(arguments)")
            }
        }
        for arguments in [
            ["info", "--backing-chain", "gone.qcow2"], ["info", "-f", "qcow2", "a.raw"], ["info", "json:{\"file.filename\":\"c.qcow2\"}"],
            ["info", "--image-opts", "driver=qcow2,file.driver=file,file.filename=c.qcow2"],
            ["info", "--image-opts", "driver=qcow2,file.filename=c.qcow2,foo=bar"],
            ["info", "--image-opts", "driver=qcow2,file.driver=file,file.filename=c.qcow2,file.foo=bar"], ["info", "--image-opts", "driver=qcow2"],
            ["convert", "c.qcow2", "c.qcow2"], ["convert", "-B", "b.qcow2", "-O", "qcow2", "c.qcow2", "o.qcow2"], ["convert", "-F", "raw", "-O", "qcow2", "b.qcow2", "o.qcow2"],
        ] {
            #expect(try pair.runOurs(arguments) == pair.runTheirs(arguments), "qemu-img \(arguments)")
        }
    }

    @Test("an image that another process writes to is refused, and shown when that is asked for")
    func locks() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([["create", "-q", "-f", "qcow2", "b.qcow2", "1M"]])
        // The writer stays until its input ends.
        let writer = try ChildProcess("qemu-io", ["b.qcow2"], in: pair.ours, input: nil)
        defer { writer.closeInput() }
        try writer.type("read 0 512\n")
        // Its answer says that the image is open.
        let isOpen = try waitUntil { try writer.outputSoFar().output.contains("ops/sec") }
        #expect(isOpen)
        for arguments in [["info", "b.qcow2"], ["check", "b.qcow2"], ["convert", "b.qcow2", "o.raw"], ["create", "-f", "qcow2", "b.qcow2", "1M"], ["info", "-U", "b.qcow2"]] {
            let theirs = try ToolPair.run(ToolPair.qemu, arguments, in: pair.ours)
            #expect(try pair.runOurs(arguments) == theirs)
        }
    }

    @Test("conversion keeps every byte, in both directions, over formats, cluster sizes and depths", arguments: [
        "", "-o cluster_size=512", "-o cluster_size=4k,compat=0.10", "-o cluster_size=2M", "-W", "-m 1", "-S 0", "-S 64k", "-o preallocation=metadata",
        "-o refcount_bits=1", "-t none", "-t writethrough -m 2", "-T none",
    ])
    func convert(options: String) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        let words = options.split(separator: " ").map(String.init)
        var random = SeededGenerator(seed: UInt64(options.utf8.reduce(7) { $0 &* 31 &+ Int($1) }.magnitude))
        let source = pair.ours.appendingPathComponent("source.raw")
        try Self.writeSparseRandomFile(source, byteCount: 20 << 20 | 512, &random)

        func expectFine(_ outcome: ToolPair.Outcome) { #expect(outcome.status == 0, "\(outcome)") }
        expectFine(try pair.runOurs(["convert", "-f", "raw", "-O", "qcow2"] + words + ["source.raw", "made.qcow2"]))
        expectFine(try ToolPair.run(ToolPair.qemu, ["check", "made.qcow2"], in: pair.ours))
        expectFine(try ToolPair.run(ToolPair.qemu, ["compare", "-f", "raw", "source.raw", "made.qcow2"], in: pair.ours))
        // Layers on top, written by QEMU, and flattened by us.
        expectFine(try ToolPair.run(ToolPair.qemu, ["create", "-q", "-f", "qcow2", "-b", "made.qcow2", "-F", "qcow2", "top.qcow2"], in: pair.ours))
        expectFine(try ToolPair.run("/usr/bin/qemu-io", ["-c", "write -P 9 1M 100k", "-c", "write -z 3M 1M", "-c", "write -c -P 8 5M 64k", "top.qcow2"], in: pair.ours))
        expectFine(try pair.runOurs(["convert", "top.qcow2", "flat.raw"]))
        expectFine(try ToolPair.run(ToolPair.qemu, ["compare", "-F", "raw", "top.qcow2", "flat.raw"], in: pair.ours))
        // Only the layer itself, on the same backing file.
        expectFine(try pair.runOurs(["convert", "-O", "qcow2", "-B", "made.qcow2", "-F", "qcow2", "top.qcow2", "layer.qcow2"]))
        expectFine(try ToolPair.run(ToolPair.qemu, ["compare", "top.qcow2", "layer.qcow2"], in: pair.ours))
        expectFine(try ToolPair.run(ToolPair.qemu, ["check", "layer.qcow2"], in: pair.ours))
    }

    /// Runs of random bytes, of zeroes and of nothing at all.
    private static func writeSparseRandomFile(_ url: URL, byteCount: Int, _ random: inout SeededGenerator) throws {
        try Data().write(to: url)
        let file = try FileHandle(forWritingTo: url)
        try file.truncate(atOffset: UInt64(byteCount))
        var position = 0
        while position < byteCount {
            let length = min(byteCount - position, 512 * Int.random(in: 1...600, using: &random))
            let kind = Int.random(in: 0..<4, using: &random)
            if kind < 3 {
                try file.seek(toOffset: UInt64(position))
                try file.write(contentsOf: kind == 0 ? Data(count: length) : Data((0..<length).map { _ in UInt8.random(in: 1...255, using: &random) }))
            }
            position += length
        }
        try file.close()
    }
}
