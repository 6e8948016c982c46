import Foundation
import StrataTesting
import Testing

/// Options of qcow2 images one by one, against qemu-img: what they do, and what they refuse.
@Suite("options of qcow2 images, one by one", .serialized)
struct QCOW2OptionTests {
    /// What qemu-img says about an image, without what two images made one after the other differ in.
    private static func description(of name: String, in directory: URL) throws -> [String] {
        let info = try ToolPair.run(ToolPair.qemu, ["info", name], in: directory)
        let check = try ToolPair.run(ToolPair.qemu, ["check", "-q", name], in: directory)
        let accidental = ["disk size", "file length"]
        return ["check \(check.status)"] + info.output.split(separator: "\n").map(String.init).filter { line in
            // A snapshot's line begins with its number and tells the time.
            !accidental.contains { line.contains($0) } && line.first?.isNumber != true
        }
    }

    // MARK: Amending

    struct Kind: Sendable, CustomTestStringConvertible {
        let testDescription: String
        let images: [[String]]
    }

    private static let data = ["io", "-c", "write -P 7 0 300k", "a.qcow2"]
    static let kinds = [
        Kind(testDescription: "version 3 over a backing file", images: [["create", "-q", "base", "1M"], ["create", "-q", "base2", "1M"], ["create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "a.qcow2"], data]),
        Kind(testDescription: "version 2 over a backing file", images: [["create", "-q", "base", "1M"], ["create", "-q", "-f", "qcow2", "-o", "compat=0.10", "-b", "base", "-F", "raw", "a.qcow2"], data]),
        Kind(testDescription: "lazy refcounts of 64 bits, a snapshot", images: [["create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on,refcount_bits=64", "a.qcow2", "1M"], data, ["snapshot", "-c", "s", "a.qcow2"]]),
        Kind(testDescription: "refcounts of 1 bit", images: [["create", "-q", "-f", "qcow2", "-o", "refcount_bits=1,cluster_size=4k", "a.qcow2", "1M"], data]),
        Kind(testDescription: "subclusters", images: [["create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "a.qcow2", "1M"], data]),
        Kind(testDescription: "a raw data file", images: [["create", "-q", "-f", "qcow2", "-o", "data_file=d.raw,data_file_raw=on", "a.qcow2", "1M"], data]),
        Kind(testDescription: "a bitmap", images: [["create", "-q", "-f", "qcow2", "a.qcow2", "1M"], data, ["bitmap", "--add", "a.qcow2", "b0"]]),
        Kind(testDescription: "snapshots of two sizes", images: [["create", "-q", "-f", "qcow2", "a.qcow2", "1M"], ["snapshot", "-c", "s", "a.qcow2"], ["resize", "-q", "a.qcow2", "2M"], ["snapshot", "-c", "t", "a.qcow2"]]),
    ]

    static let amendments =
        [
            "compat=0.10", "compat=v3", "compat=foo", "backing_file=base", "backing_fmt=raw", "backing_file=base,backing_fmt=raw", "backing_file=base2,backing_fmt=raw", "backing_file=",
            "refcount_bits=1", "refcount_bits=16", "refcount_bits=32", "refcount_bits=7", "lazy_refcounts=on", "lazy_refcounts=off", "data_file=e.raw", "data_file=", "data_file_raw=on",
            "data_file_raw=off", "size=2M", "size=512k", "size=0", "cluster_size=4k", "preallocation=full", "extended_l2=off", "compression_type=zstd", "encryption=on",
            "compat=0.10,refcount_bits=16,lazy_refcounts=off", "compat=1.1,lazy_refcounts=on,refcount_bits=8", "size=3M,compat=1.1",
        ]
        + (extendedRun ? ["refcount_bits=2", "refcount_bits=4", "refcount_bits=8", "refcount_bits=64", "compat=1.1", "compat=v2", "size=1M", "extended_l2=on", "compression_type=zlib", "foo=bar"] : [])

    @Test("amend does what qemu-img does with every option, and refuses in its words", arguments: kinds)
    func amend(kind: Kind) throws {
        let pair = try ToolPair(in: FileManager.default.temporaryDirectory)
        defer { pair.remove() }
        try pair.prepare(kind.images)
        let files = FileManager.default
        let images = [pair.theirs, pair.ours].map { $0.appendingPathComponent("a.qcow2") }
        let sound = try images.map { try Data(contentsOf: $0) }
        for options in amendments(for: kind) {
            for (image, bytes) in zip(images, sound) { try bytes.write(to: image) }
            let arguments = ["amend", "-o", options, "a.qcow2"]
            let (theirs, ours) = (try pair.runTheirs(arguments), try pair.runOurs(arguments))
            #expect(ours == theirs, "\(options)")
            #expect(try Self.description(of: "a.qcow2", in: pair.ours) == Self.description(of: "a.qcow2", in: pair.theirs), "\(options)")
            if theirs.status != 0 { #expect(try Data(contentsOf: images[1]) == sound[1], "\(options): what is refused leaves the image as it was") }
            // The name of a data file is not the file: nobody has made that.
            if options.hasPrefix("data_file="), theirs.status == 0 { continue }
            for directory in [pair.theirs, pair.ours] where files.fileExists(atPath: directory.appendingPathComponent("a.qcow2").path) {
                let read = try ToolPair.run("/usr/bin/qemu-io", ["-r", "-c", kind.testDescription.hasPrefix("snapshots") ? "read -P 0 0 300k" : "read -P 7 0 300k", "a.qcow2"], in: directory)
                #expect(read.status == 0 && !read.output.contains("Pattern verification failed"), "\(options): \(read)")
            }
        }
    }

    /// A third of them for each kind of image, another third for the next; all of them in the extended run.
    private func amendments(for kind: Kind) -> [String] {
        let number = Self.kinds.firstIndex { $0.testDescription == kind.testDescription } ?? 0
        return Self.amendments.enumerated().filter { index, options in
            // Docs/Compatibility.md: an image does not lose its bitmaps on the way to version 2.
            let losesBitmaps = kind.testDescription == "a bitmap" && (options.hasPrefix("compat=0.10") || options == "compat=v2")
            return !losesBitmaps && (extendedRun || (index + number) % 3 == 0)
        }.map(\.element)
    }

    // MARK: Data files

    @Test("a data file that was there is replaced as by qemu-img", arguments: [
        "data_file=d.raw", "data_file=d.raw,data_file_raw=on", "data_file=d.raw,data_file_raw=on,preallocation=full", "data_file=d.raw,preallocation=falloc",
    ], ["1M", "512k", "2M"])
    func replacedDataFile(options: String, length: String) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([["create", "-q", "d.raw", length], ["io", "-f", "raw", "-c", "write -P 5 0 \(length)", "d.raw"]])
        let arguments = ["create", "-f", "qcow2", "-o", options, "a.qcow2", "1M"]
        #expect(try pair.runOurs(arguments) == pair.runTheirs(arguments))
        func bytes(_ directory: URL) throws -> Data { try Data(contentsOf: directory.appendingPathComponent("d.raw")) }
        #expect(try bytes(pair.ours) == bytes(pair.theirs))
        #expect(try Self.description(of: "a.qcow2", in: pair.ours) == Self.description(of: "a.qcow2", in: pair.theirs))
    }

    /// The option is newer than the QEMU that is asked here, which reads the images all the same.
    @Test("with keep_data_file it keeps every byte, and the image shows them where its clusters are there from the beginning", arguments: [
        "data_file_raw=on", "data_file_raw=off", "data_file_raw=off,preallocation=metadata", "data_file_raw=on,preallocation=metadata", "data_file_raw=on,preallocation=falloc",
        "data_file_raw=on,preallocation=full", "data_file_raw=on,cluster_size=4k", "data_file_raw=on,extended_l2=on", "data_file_raw=off,extended_l2=on,preallocation=metadata",
    ], [1 << 20, 512 << 10, 2 << 20])
    func keptDataFile(options: String, length: Int) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        var random = SeededGenerator(seed: UInt64(length))
        let data = Data(randomBytes(length, using: &random))
        let file = pair.ours.appendingPathComponent("d.raw")
        try data.write(to: file)
        let made = try pair.runOurs(["create", "-q", "-f", "qcow2", "-o", "data_file=d.raw,keep_data_file=on,\(options)", "a.qcow2", "1M"])
        #expect(made.status == 0, "\(made)")
        // It may have become longer, never shorter.
        var expected = data
        expected.append(Data(count: max(0, 1 << 20 - length)))
        #expect(try Data(contentsOf: file) == expected)
        let check = try ToolPair.run(ToolPair.qemu, ["check", "a.qcow2"], in: pair.ours)
        #expect(check.status == 0, "\(check)")
        let isShown = options.contains("data_file_raw=on") || options.contains("preallocation")
        for convert in [{ try ToolPair.run(ToolPair.qemu, $0, in: pair.ours) }, { try pair.runOurs($0) }] as [([String]) throws -> ToolPair.Outcome] {
            #expect(try convert(["convert", "-f", "qcow2", "-O", "raw", "a.qcow2", "out.raw"]).status == 0)
            let shown = try Data(contentsOf: pair.ours.appendingPathComponent("out.raw"))
            #expect(shown == (isShown ? expected.prefix(1 << 20) : Data(count: 1 << 20)))
        }
    }

    @Test("keep_data_file without a data file, or with one that is not there, is refused and makes nothing", arguments: ["keep_data_file=on", "keep_data_file=on,data_file=none.raw"])
    func nothingToKeep(options: String) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        let outcome = try pair.runOurs(["create", "-q", "-f", "qcow2", "-o", options, "a.qcow2", "1M"])
        #expect(outcome.status == 1 && (outcome.errors.contains("keep_data_file can only be used together with data_file") || outcome.errors.contains("'none.raw': No such file or directory")), "\(outcome)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: pair.ours.path).isEmpty)
    }

    // MARK: What nobody knows

    /// Puts an extension of an unknown type behind the others, and unknown compatible feature bits.
    private static func addUnknown(to url: URL, _ data: [UInt8]) throws {
        var bytes = [UInt8](try Data(contentsOf: url))
        func number(_ offset: Int, _ size: Int) -> Int { bytes[offset..<offset + size].reduce(0) { $0 << 8 | Int($1) } }
        var place = number(100, 4)
        while number(place, 4) != 0 { place += 8 + (number(place + 4, 4) + 7) / 8 * 8 }
        let new = unknown(data) + [UInt8](repeating: 0, count: 8)
        let (name, size) = (number(8, 8), number(16, 4))
        // The backing file's name follows.
        let text = name == 0 ? [] : Array(bytes[name..<name + size])
        bytes.replaceSubrange(place..<place + new.count + text.count, with: new + text)
        if name != 0 { for index in 0..<8 { bytes[8 + index] = UInt8(truncatingIfNeeded: (place + new.count) >> (56 - 8 * index)) } }
        bytes[80] |= 0x80
        try Data(bytes).write(to: url)
    }

    private static func unknown(_ data: [UInt8]) -> [UInt8] {
        [0x12, 0x34, 0x56, 0x78] + (0..<4).map { UInt8(truncatingIfNeeded: data.count >> (24 - 8 * $0)) } + data + [UInt8](repeating: 0, count: (8 - data.count % 8) % 8)
    }

    @Test("header extensions and compatible features that nobody knows stay, whatever is done to the image, as with qemu-img", arguments: [
        "amend -o lazy_refcounts=on", "amend -o refcount_bits=8", "amend -o size=2M", "snapshot -c s", "rebase -u -F raw -b base2", "rebase -F raw -b base2", "rebase -u -b ''", "resize -q 2M",
        "resize -q --shrink 512k", "bitmap --add b0", "check -r all", "commit -q",
    ], [0, 13, 3000])
    func unknownExtension(command: String, size: Int) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([
            ["create", "-q", "base", "1M"], ["create", "-q", "base2", "1M"], ["create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "a.qcow2"],
            ["io", "-c", "write -P 7 0 300k", "a.qcow2"],
        ])
        let data = (0..<size).map { UInt8(truncatingIfNeeded: $0 | 1) }
        for directory in [pair.ours, pair.theirs] { try Self.addUnknown(to: directory.appendingPathComponent("a.qcow2"), data) }
        var words = command.split(separator: " ").map { $0 == "''" ? "" : String($0) }
        // The image's name comes before what a command does to it.
        switch words[0] {
        case "resize": words.insert("a.qcow2", at: words.count - 1)
        case "bitmap": words.insert("a.qcow2", at: words.count - 1)
        default: words.append("a.qcow2")
        }
        let (theirs, ours) = (try pair.runTheirs(words), try pair.runOurs(words))
        #expect(ours == theirs && theirs.status == 0, "\(ours) \(theirs)")
        let header = [UInt8](try Data(contentsOf: pair.ours.appendingPathComponent("a.qcow2")).prefix(65536))
        #expect(Data(header).contains(Data(Self.unknown(data))))
        #expect(header[80] & 0x80 != 0)
        #expect(try Self.description(of: "a.qcow2", in: pair.ours) == Self.description(of: "a.qcow2", in: pair.theirs))
    }

    // MARK: Snapshots

    /// Where in a snapshot's record, how many bytes, which number. Source: docs/interop/qcow2, "Snapshots".
    @Test("the fields of a snapshot, at their limits, are listed as by qemu-img, and stay when another snapshot is made", arguments: [
        (16, 4, 1 << 31), (16, 4, 0xffff_ffff), (20, 4, 999_999_999), (24, 8, Int.max), (40, 8, 1 << 40), (40, 8, 5_000_000_000), (48, 8, 2 << 20), (56, 8, 12_345_678_901), (56, 8, -1),
    ])
    func snapshotFields(offset: Int, size: Int, value: Int) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([["create", "-q", "-f", "qcow2", "a.qcow2", "1M"], ["snapshot", "-c", "s", "a.qcow2"]])
        func record(_ bytes: [UInt8]) -> Int { bytes[64..<72].reduce(0) { $0 << 8 | Int($1) } }
        for directory in [pair.theirs, pair.ours] {
            let file = directory.appendingPathComponent("a.qcow2")
            var bytes = [UInt8](try Data(contentsOf: file))
            let start = record(bytes)
            // One moment for both.
            for index in 16..<24 { bytes[start + index] = index == 19 ? 7 : 0 }
            for index in 0..<size { bytes[start + offset + index] = UInt8(truncatingIfNeeded: value >> (8 * (size - 1 - index))) }
            try Data(bytes).write(to: file)
        }
        let list = ["snapshot", "-l", "a.qcow2"]
        #expect(try pair.runOurs(list) == pair.runTheirs(list))
        func told(_ outcome: ToolPair.Outcome) -> [String] { outcome.output.split(separator: "\n").map(String.init).filter { ["icount", "vm-", "date-", "\"id\"", "\"name\""].contains(where: $0.contains) } }
        let info = ["info", "--output=json", "a.qcow2"]
        #expect(try told(pair.runOurs(info)) == told(pair.runTheirs(info)))
        #expect(try pair.runOurs(["snapshot", "-c", "t", "a.qcow2"]).status == 0)
        let after = [UInt8](try Data(contentsOf: pair.ours.appendingPathComponent("a.qcow2")))
        let kept = after[record(after) + offset..<record(after) + offset + size].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        #expect(kept == UInt64(truncatingIfNeeded: value) & (size == 4 ? 0xffff_ffff : .max))
    }

    // MARK: Limits

    @Test("sizes up to the format's limits are taken and refused as by qemu-img", arguments: ["cluster_size=512", "cluster_size=64k", "cluster_size=2M", "cluster_size=64k,extended_l2=on"])
    func sizes(options: String) throws {
        for size in ["0", "1", "511", "512", "16G", "128G", "128.0001G", "2T", "1P", "2P", "2049T", "16P", "64P", "65P", "4E"] {
            let pair = try ToolPair()
            defer { pair.remove() }
            let arguments = ["create", "-f", "qcow2", "-o", options, "a.qcow2", size]
            let (theirs, ours) = (try pair.runTheirs(arguments), try pair.runOurs(arguments))
            #expect(ours == theirs, "\(size)")
            if theirs.status == 0 { #expect(try Self.description(of: "a.qcow2", in: pair.ours) == Self.description(of: "a.qcow2", in: pair.theirs), "\(size)") }
        }
    }

    @Test("every width of refcounts with every size of clusters: what we write QEMU finds clean, and the reverse", arguments: [1, 2, 4, 8, 16, 32, 64])
    func refcountWidths(bits: Int) throws {
        for clusterSize in extendedRun ? ["512", "4k", "64k", "2M"] : ["512", "64k"] {
            let pair = try ToolPair()
            defer { pair.remove() }
            let create = ["create", "-f", "qcow2", "-o", "refcount_bits=\(bits),cluster_size=\(clusterSize)", "a.qcow2", "20M"]
            #expect(try pair.runOurs(create) == pair.runTheirs(create))
            let io = ["-c", "write -P 3 1M 3M", "-c", "write -z 2M 100k", "-c", "discard 5M 1M", "a.qcow2"]
            let snapshot = ["snapshot", "-c", "s", "a.qcow2"]
            #expect(try pair.runOurIO(io, in: pair.ours).status == 0)
            #expect(try ToolPair.run("/usr/bin/qemu-io", io, in: pair.theirs).status == 0)
            // One bit counts no second reference.
            let (theirs, ours) = (try pair.runTheirs(snapshot), try pair.runOurs(snapshot))
            #expect(ours.status == theirs.status && (ours.status == 0) == (bits > 1), "\(ours) \(theirs)")
            // Each goes on with the other's image.
            let more = ["-c", "write -P 4 1M 1M", "-c", "read -P 3 3M 1M", "a.qcow2"]
            #expect(try pair.runOurIO(more, in: pair.theirs).status == 0)
            #expect(try ToolPair.run("/usr/bin/qemu-io", more, in: pair.ours).status == 0)
            let check = try ToolPair.run(ToolPair.qemu, ["check", "a.qcow2"], in: pair.ours)
            #expect(check.status == 0, "\(check)")
            #expect(try pair.runOurs(["check", "-q", "a.qcow2"], in: pair.theirs).status == (bits > 1 ? 0 : 3), "a snapshot that QEMU does not make leaks")
        }
    }
}
