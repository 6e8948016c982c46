import BlockGraph
import Foundation
import StorageSchema
import StrataTesting
import Testing

@Suite("images of other programs, as qemu-img sees them")
struct SameAsQEMUTests {
    /// Runs ours under the name of theirs, and theirs, and compares all that they say.
    private static func expectSame(_ arguments: [String], in folder: TemporaryFolder) throws {
        let link = folder.path("qemu-img")
        if !folder.contains("qemu-img") { try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: Strata.binary) }
        let ours = try run(link, arguments, in: folder.url)
        let theirs = try run("qemu-img", arguments, in: folder.url)
        #expect(ours.text == theirs.text, "\(arguments)")
        #expect(ours.errorText == theirs.errorText, "\(arguments)")
        #expect(ours.ending == theirs.ending, "\(arguments)")
    }

    @Test("info, map, check and measure say the same, with the format named and found out", arguments: ForeignImage.small + ForeignImage.large)
    func descriptions(image: ForeignImage) throws {
        let folder = try TemporaryFolder()
        try image.make(in: folder)
        let isFound = !image.options.contains("fixed")
        for format in isFound ? [[], ["-f", image.format.rawValue]] : [["-f", image.format.rawValue]] {
            for command in [
                ["info"], ["info", "--output=json"], ["map"], ["map", "--output=json"], ["map", "--output=json", "-s", "100000", "-l", "4000000"], ["check"],
                ["check", "--output=json"], ["check", "-q"],
            ] {
                try Self.expectSame([command[0]] + format + command.dropFirst() + [ForeignImage.name], in: folder)
            }
        }
        if image.size.hasSuffix("M") { try Self.expectSame(["measure", "-f", image.format.rawValue, "-O", "qcow2", ForeignImage.name], in: folder) }
    }

    @Test("a conversion has QEMU's bytes, and comparing the two finds no difference", arguments: ForeignImage.small)
    func conversion(image: ForeignImage) throws {
        let folder = try TemporaryFolder()
        try image.make(in: folder)
        let format = image.format.rawValue
        let theirs = try QEMU.contents(of: ForeignImage.name, format: format, in: folder)
        for target in ["raw", "qcow2"] {
            try Strata.mustImg("convert", "-f", format, "-O", target, ForeignImage.name, "ours.\(target)", in: folder)
            let ours = try QEMU.contents(of: "ours.\(target)", format: target, in: folder)
            #expect(firstDifference(ours, theirs) == nil)
        }
        try Strata.mustImg("compare", "-f", format, "-F", "raw", ForeignImage.name, "ours.raw", in: folder)
    }

    @Test("sparse disks of more than 4 GiB are converted", arguments: ForeignImage.large.filter { $0.size == "5G" })
    func largeConversion(image: ForeignImage) throws {
        let folder = try TemporaryFolder()
        try image.make(in: folder)
        let format = image.format.rawValue
        try Strata.mustImg("convert", "-f", format, "-O", "qcow2", ForeignImage.name, "ours.qcow2", in: folder)
        try QEMU.img("compare", "-f", format, "-F", "qcow2", ForeignImage.name, "ours.qcow2", in: folder)
    }

    @Test("reads of any size at any place, several at a time, find what QEMU finds", arguments: ForeignImage.small)
    func randomReads(image: ForeignImage) async throws {
        let folder = try TemporaryFolder()
        try image.make(in: folder)
        let contents = try QEMU.contents(of: ForeignImage.name, format: image.format.rawValue, in: folder)
        try await ForeignImage.withBackend(image.format, folder.path(ForeignImage.name)) { backend in
            #expect(backend.length == contents.count)
            try await withThrowingTaskGroup { group in
                for worker in 0..<4 as Range<UInt64> {
                    group.addTask {
                        var generator = SeededGenerator(seed: runSeed &+ worker)
                        for _ in 0..<150 {
                            let start = Int.random(in: 0..<contents.count, using: &generator)
                            let longest = min(contents.count - start, Bool.random(using: &generator) ? 3 << 20 : 5000)
                            let count = Int.random(in: 1...longest, using: &generator)
                            let read = try await backend.readBytes(at: start, count)
                            let difference = firstDifference(read, Array(contents[start..<start + count]))
                            #expect(difference == nil, "\(count) bytes at \(start), seed \(runSeed): \(difference ?? "")")
                        }
                    }
                }
                try await group.waitForAll()
            }
        }
    }

    @Test("images cannot be made, measured for or changed in these formats, and each refusal says so", arguments: ["vdi", "vhdx", "vmdk", "vpc"])
    func writing(format: String) throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-q", "-f", format, "a", "4M", in: folder)
        try QEMU.img("create", "-q", "-f", "raw", "source.raw", "1M", in: folder)
        for (arguments, message) in [
            (["create", "-f", format, "b", "1M"], "Format driver '\(format)' does not support image creation"),
            (["convert", "-f", "raw", "-O", format, "source.raw", "b"], "Format driver '\(format)' does not support image creation"),
            (["measure", "-O", format, "--size", "1M"], "Block driver '\(format)' does not support size measurement"),
            (["resize", "-f", format, "a", "8M"], "Image is read-only"),
            (["snapshot", "-f", format, "-c", "s", "a"], "Image is read-only"),
        ] {
            let finished = try run(Strata.binary, ["img"] + arguments, in: folder.url)
            #expect(finished.ending == .exited(1) && finished.errorText.contains(message), "\(finished)")
            #expect(!folder.contains("b"))
        }
    }

    @Test("a node that may be read-only is, and one that must be written to is refused", arguments: [BlockdevDriver.vdi, .vhdx, .vmdk, .vpc])
    func readOnly(format: BlockdevDriver) async throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-q", "-f", format.rawValue, "a", "4M", in: folder)
        let path = folder.path("a")
        let daemon = try Daemon(in: folder)
        func add(_ options: [String: JSON]) throws {
            var node: [String: JSON] = ["driver": .string(format.rawValue), "node-name": "disk", "file": ["driver": "file", "filename": .string(path)]]
            node.merge(options) { $1 }
            try daemon.monitor.execute("blockdev-add", .object(node))
        }
        let refusal = #expect(throws: QMPLineClient.Refusal.self) { try add(["read-only": false]) }
        #expect(refusal?.message == "Image is read-only")
        try add(["auto-read-only": true])
        let nodes = try daemon.monitor.execute("query-named-block-nodes")
        #expect("\(nodes)".contains("\(format.rawValue)"))
        #expect(throws: QMPLineClient.Refusal.self) {
            try daemon.monitor.execute("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk", "writable": true])
        }
        let reopening = #expect(throws: QMPLineClient.Refusal.self) {
            try daemon.monitor.execute(
                "blockdev-reopen",
                ["options": [["driver": .string(format.rawValue), "node-name": "disk", "read-only": false, "file": ["driver": "file", "filename": .string(path)]]]])
        }
        #expect(reopening?.message == "Image is read-only")
        // What was read of the image would not be true of another file.
        try daemon.monitor.execute("blockdev-add", ["driver": "null-co", "node-name": "other", "size": 1_048_576])
        let exchange = #expect(throws: QMPLineClient.Refusal.self) {
            try daemon.monitor.execute(
                "blockdev-reopen", ["options": [["driver": .string(format.rawValue), "node-name": "disk", "read-only": true, "file": "other"]]])
        }
        #expect(exchange?.message == "The 'file' child of a node of driver '\(format.rawValue)' cannot be exchanged")
    }

    @Test("an overlay shows what lies in an image of another program below it", arguments: ForeignImage.small.filter { $0.size == "20M" && $0.options.isEmpty })
    func backing(image: ForeignImage) throws {
        let folder = try TemporaryFolder()
        try image.make(in: folder)
        try QEMU.img("create", "-q", "-f", "qcow2", "-b", ForeignImage.name, "-F", image.format.rawValue, "top.qcow2", in: folder)
        try QEMU.io("top.qcow2", ["write -P 77 1M 100k"], in: folder)
        try Strata.mustImg("convert", "-f", "qcow2", "-O", "raw", "top.qcow2", "ours.raw", in: folder)
        let difference = firstDifference(try folder.read("ours.raw"), try QEMU.contents(of: "top.qcow2", in: folder))
        #expect(difference == nil)
    }
}
