import Foundation
import StrataTesting
import Testing

/// Images whose header says something about other files that nobody's tool has written. What an image says must never lead to another file than it means.
@Suite("names of other files in qcow2 headers", .serialized)
struct StoredNameTests {
    private static func patch(_ file: URL, _ change: (inout Data) throws -> Void) throws {
        var data = try Data(contentsOf: file)
        try change(&data)
        try data.write(to: file)
    }

    /// Puts bytes in the place of the first that are `old`.
    private static func replace(_ old: String, _ new: [UInt8], in file: URL) throws {
        try #require(old.utf8.count == new.count)
        try patch(file) { data in data.replaceSubrange(try #require(data.range(of: Data(old.utf8))), with: new) }
    }

    @Test(
        "a header that contradicts itself about where guest data lies is shown, and neither used nor checked",
        arguments: [(79, 4, "'data-file' is required for this image"), (95, 2, "data-file-raw requires a data file")])
    func unclearData(at place: Int, bit: UInt8, message: String) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([["create", "-q", "-f", "qcow2", "a.qcow2", "1M"], ["io", "-c", "write -P 5 0 256k", "a.qcow2"]])
        for directory in [pair.ours, pair.theirs] { try Self.patch(directory.appendingPathComponent("a.qcow2")) { $0[place] |= bit } }
        let before = try Data(contentsOf: pair.ours.appendingPathComponent("a.qcow2"))
        for command in ["info a.qcow2", "map a.qcow2", "convert -O raw a.qcow2 o.raw", "resize a.qcow2 2M", "snapshot -c s a.qcow2", "bitmap --add a.qcow2 b", "amend -o lazy_refcounts=on a.qcow2"] {
            let words = command.split(separator: " ").map(String.init)
            #expect(try pair.runOurs(words) == pair.runTheirs(words), "\(command)")
        }
        // These open no other file, and say so in other words.
        for command in ["check a.qcow2", "check -r leaks a.qcow2", "check -r all a.qcow2", "rebase -u -b x -F raw a.qcow2"] {
            let words = command.split(separator: " ").map(String.init)
            let (ours, theirs) = (try pair.runOurs(words), try pair.runTheirs(words))
            #expect(ours.status == 1 && theirs.status == 1 && ours.errors.contains(message) && theirs.errors.contains(message), "\(command): \(ours)")
        }
        #expect(try Data(contentsOf: pair.ours.appendingPathComponent("a.qcow2")) == before)
    }

    @Test("an image without the name of its data file is used and checked with the one in the options")
    func givenDataFile() throws {
        let folder = try TemporaryFolder()
        try Strata.mustImg("create", "-q", "-f", "qcow2", "-o", "data_file=d.raw", "a.qcow2", "1M", in: folder)
        try Strata.mustImg("amend", "-o", "data_file=", "a.qcow2", in: folder)
        let options = "driver=qcow2,file.filename=a.qcow2,data-file.driver=file,data-file.filename=d.raw"
        for command in [["check"], ["check", "-r", "all"], ["map"]] { try mustRun(Strata.binary, ["img"] + command + ["--image-opts", options], in: folder.url) }
        #expect(try !Strata.img("check", "a.qcow2", in: folder).succeeded)
    }

    @Test("the name of a data file is taken literally, whatever it looks like", arguments: ["x:d.raw", "file:d.raw", "blkdebug::d.raw", "nbd:unix:d.raw", "fat:rw:.", "json:{\"driver\":\"null-co\"}"])
    func literalDataFile(name: String) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        let placeholder = String(repeating: "y", count: name.utf8.count)
        try pair.prepare([["create", "-q", "-f", "raw", "d.raw", "1M"], ["create", "-q", "-f", "qcow2", "-o", "data_file=\(placeholder)", "a.qcow2", "1M"]])
        for directory in [pair.ours, pair.theirs] { try Self.replace(placeholder, Array(name.utf8), in: directory.appendingPathComponent("a.qcow2")) }
        let command = ["convert", "-O", "raw", "a.qcow2", "o.raw"]
        let (missing, theirs) = (try pair.runOurs(command), try pair.runTheirs(command))
        #expect(missing.status == 1 && missing == theirs)
        for directory in [pair.ours, pair.theirs] {
            try FileManager.default.moveItem(at: directory.appendingPathComponent(placeholder), to: directory.appendingPathComponent(name))
        }
        #expect(try pair.runOurs(command) == pair.runTheirs(command))
        // It lies beside the image, like any other.
        let written = try pair.runOurIO(["-c", "write -P 7 0 64k", pair.ours.appendingPathComponent("a.qcow2").path], in: pair.root)
        #expect(written.status == 0, "\(written)")
        #expect(try Data(contentsOf: pair.ours.appendingPathComponent(name)).prefix(65536) == Data(repeating: 7, count: 65536))
        #expect(try Data(contentsOf: pair.ours.appendingPathComponent("d.raw")) == Data(count: 1 << 20))
    }

    @Test("a data file's name that is not UTF-8 is another file's name for us: the image is shown and checked, and used with another name only")
    func otherDataFile() throws {
        let folder = try TemporaryFolder()
        try Strata.mustImg("create", "-q", "-f", "qcow2", "-o", "data_file=d_.raw", "a.qcow2", "1M", in: folder)
        let image = folder.url.appending(path: "a.qcow2")
        let bytes: [UInt8] = [UInt8(ascii: "d"), 0xff] + Array(".raw".utf8)
        try Self.replace("d_.raw", bytes, in: image)
        for name in ["d\u{fffd}.raw", "e.raw"] { try Strata.mustImg("create", "-q", "-f", "raw", name, "1M", in: folder) }
        let refused = try run(Strata.binary, ["io", "-c", "write -P 5 0 4k", "a.qcow2"], in: folder.url)
        #expect(refused.ending == .exited(1) && refused.errorText.contains("The name of the data file in the image 'a.qcow2' is not UTF-8"), "\(refused)")
        #expect(try folder.read("d\u{fffd}.raw").allSatisfy { $0 == 0 })
        for command in ["info", "check"] { try Strata.mustImg(command, "a.qcow2", in: folder) }
        let options = "driver=qcow2,file.filename=a.qcow2,data-file.driver=file,data-file.filename=e.raw"
        try mustRun(Strata.binary, ["io", "--image-opts", "-c", "write -P 5 0 4k", options], in: folder.url)
        try Strata.mustImg("amend", "-o", "lazy_refcounts=on", "--image-opts", options, in: folder)
        #expect(try folder.read("e.raw").prefix(4096).allSatisfy { $0 == 5 })
        #expect(try Data(contentsOf: image).range(of: Data(bytes)) != nil)
    }

    @Test("the same of a backing file's name")
    func otherBackingFile() throws {
        let folder = try TemporaryFolder()
        for name in ["b_se", "b\u{fffd}se"] { try Strata.mustImg("create", "-q", "-f", "qcow2", name, "1M", in: folder) }
        try Strata.mustImg("create", "-q", "-f", "qcow2", "-b", "b_se", "-F", "qcow2", "a.qcow2", in: folder)
        let image = folder.url.appending(path: "a.qcow2")
        let bytes: [UInt8] = [UInt8(ascii: "b"), 0xff] + Array("se".utf8)
        try Self.replace("b_se", bytes, in: image)
        for command in [["info", "--backing-chain"], ["map"], ["commit"], ["rebase", "-b", ""], ["resize", "--shrink"]] {
            let refused = try run(Strata.binary, ["img"] + command + ["a.qcow2"] + (command[0] == "resize" ? ["512k"] : []), in: folder.url)
            #expect(refused.ending == .exited(1) && refused.errorText.contains("The name of the backing file in the image 'a.qcow2' is not UTF-8"), "\(refused)")
        }
        let refined = try Strata.img("map", "--image-opts", "driver=qcow2,file.filename=a.qcow2,backing.file.locking=off", in: folder)
        #expect(refined.ending == .exited(1) && refined.errorText.contains("The name of the backing file in the image is not UTF-8"), "\(refined)")
        for command in ["info", "check"] { try Strata.mustImg(command, "a.qcow2", in: folder) }
        try Strata.mustImg("map", "json:{\"driver\":\"qcow2\",\"backing\":null,\"file\":{\"driver\":\"file\",\"filename\":\"a.qcow2\"}}", in: folder)
        #expect(try Data(contentsOf: image).range(of: Data(bytes)) != nil)
        try Strata.mustImg("rebase", "-u", "-b", "b_se", "-F", "qcow2", "a.qcow2", in: folder)
        try Strata.mustImg("map", "a.qcow2", in: folder)
    }

    @Test("a NUL ends names of files, formats, bitmaps and snapshots")
    func names() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([
            ["create", "-q", "-f", "qcow2", "base", "1M"], ["io", "-c", "write -P 3 0 64k", "base"], ["create", "-q", "-f", "qcow2", "-b", "base_x", "-F", "qcow2", "-u", "name.qcow2", "1M"],
            ["create", "-q", "-f", "qcow2", "-b", "____", "-F", "qcow2", "-u", "none.qcow2", "1M"], ["create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "-u", "format.qcow2", "1M"],
            ["create", "-q", "-f", "qcow2", "-o", "data_file=d.raw_x", "data.qcow2", "1M"], ["create", "-q", "-f", "raw", "d.raw", "1M"], ["create", "-q", "-f", "qcow2", "inside.qcow2", "1M"],
            ["bitmap", "--add", "inside.qcow2", "b1_3"], ["snapshot", "-c", "sn_p1", "inside.qcow2"],
        ])
        for directory in [pair.ours, pair.theirs] {
            for (file, old, new) in [
                ("name", "base_x", "base\0x"), ("none", "____", "\0abc"), ("data", "d.raw_x", "d.raw\0x"), ("inside", "b1_3", "b1\03"), ("inside", "sn_p1", "sn\0p1"),
            ] { try Self.replace(old, Array(new.utf8), in: directory.appendingPathComponent(file + ".qcow2")) }
            // Its three bytes of padding belong to it.
            try Self.patch(directory.appendingPathComponent("format.qcow2")) { data in
                let format = try #require(data.range(of: Data([0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, 5]))).lowerBound
                data[format + 7] = 6
            }
        }
        for name in ["name", "none", "format", "data", "inside"] {
            for command in [["info"], ["check"], ["map"], ["convert", "-O", "raw"]] {
                let words = command + ["\(name).qcow2"] + (command[0] == "convert" ? ["o.raw"] : [])
                var (ours, theirs) = (try pair.runOurs(words), try pair.runTheirs(words))
                // When the snapshot was taken.
                (ours.output, theirs.output) = (Self.withoutTime(ours.output), Self.withoutTime(theirs.output))
                #expect(ours == theirs && ours.status == 0, "\(words)")
            }
        }
        for command in ["bitmap --add inside.qcow2 b1", "bitmap --remove inside.qcow2 b1", "snapshot -a sn inside.qcow2", "snapshot -d sn inside.qcow2", "snapshot -l inside.qcow2"] {
            let words = command.split(separator: " ").map(String.init)
            #expect(try pair.runOurs(words) == pair.runTheirs(words), "\(command)")
        }
    }

    private static func withoutTime(_ text: String) -> String { text.replacing(#/[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}/#, with: "then") }

    @Test("an empty name of a backing file's format is as good as none", arguments: [true, false])
    func emptyFormat(hasNUL: Bool) throws {
        let folder = try TemporaryFolder()
        try Strata.mustImg("create", "-q", "-f", "qcow2", "base", "1M", in: folder)
        try Strata.mustImg("create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", "a.qcow2", in: folder)
        try Self.patch(folder.url.appending(path: "a.qcow2")) { data in
            let format = try #require(data.range(of: Data([0xe2, 0x79, 0x2a, 0xca, 0, 0, 0, 5]))).lowerBound
            // Its name goes, or gives way to an extension that nobody knows and that has no data.
            data.replaceSubrange(format + 7..<format + 16, with: hasNUL ? [5, 0, 1, 1, 1, 1, 0, 0, 0] : [0, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0])
        }
        let shown = try Strata.mustImg("info", "a.qcow2", in: folder).text
        #expect(shown.contains("backing file: base\n") && !shown.contains("backing file format"))
        #expect(try Strata.img("map", "a.qcow2", in: folder).errorText.contains("names the backing file 'base' but not its format"))
        // Options that say more about the backing file are no reason to guess its format.
        for option in ["backing.file.locking=off", "backing.file.filename=base"] {
            let refined = try Strata.img("map", "--image-opts", "driver=qcow2,file.filename=a.qcow2,\(option)", in: folder)
            #expect(refined.ending == .exited(1) && refined.errorText.contains("'backing.driver' is missing"), "\(refined)")
        }
        try Strata.mustImg("map", "--image-opts", "driver=qcow2,file.filename=a.qcow2,backing.driver=qcow2", in: folder)
        try Strata.mustImg("check", "a.qcow2", in: folder)
    }
}
