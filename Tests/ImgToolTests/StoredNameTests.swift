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
}
