import Foundation
import StrataTesting
import Testing

@Suite("names of test drivers")
struct FileNameTests {
    private static func both(_ arguments: [String], in folder: TemporaryFolder) throws -> (ours: Finished, theirs: Finished) {
        (try run(Strata.binary, ["img"] + arguments, in: folder.url), try run("qemu-img", arguments, in: folder.url))
    }

    @Test("blkdebug:RULES:IMAGE opens the image, whatever its format, and its rules count")
    func blkdebug() throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-q", "-f", "qcow2", "disk", "1M", in: folder)
        try QEMU.io("disk", ["write -P 7 64k 64k"], in: folder)
        try folder.write(Array("[inject-error]\nevent = \"read_aio\"\nerrno = \"5\"\n".utf8), to: "rules")
        try Strata.mustImg("convert", "-O", "raw", "blkdebug::disk", "copy", in: folder)
        #expect(firstDifference(try folder.read("copy"), try QEMU.contents(of: "disk", in: folder)) == nil)
        let (ours, theirs) = try Self.both(["convert", "-O", "raw", "blkdebug:rules:disk", "copy"], in: folder)
        #expect(!ours.succeeded && !theirs.succeeded)
        #expect(ours.errorText.contains("Input/output error") && theirs.errorText.contains("Input/output error"), "\(ours)")
    }

    /// Unlike QEMU's, our TEST is taken for plain bytes: a name does not say what its format is.
    @Test("blkverify:RAW:TEST compares")
    func blkverify() throws {
        let folder = try TemporaryFolder()
        var bytes = [UInt8](repeating: 7, count: 1 << 20)
        try folder.write(bytes, to: "disk")
        try folder.write(bytes, to: "raw")
        try Strata.mustImg("convert", "-f", "raw", "-O", "raw", "blkverify:raw:disk", "copy", in: folder)
        #expect(firstDifference(try folder.read("copy"), bytes) == nil)
        bytes[70_000] = 1
        try folder.write(bytes, to: "raw")
        let (ours, theirs) = try Self.both(["convert", "-f", "raw", "-O", "raw", "blkverify:raw:disk", "copy"], in: folder)
        #expect(ours.ending == .exited(1) && theirs.ending == .exited(1))
        #expect(ours.errorText.contains("contents mismatch at offset 70000") && theirs.errorText.contains("contents mismatch at offset 70000"), "\(ours)")
    }

    @Test("names that lack a part are refused in QEMU's words", arguments: ["blkdebug:disk", "blkverify:disk", "blkverify:disk:", "blkverify::disk", "blkdebug:nowhere:disk"])
    func refusals(name: String) throws {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 0, count: 4096), to: "disk")
        let (ours, theirs) = try Self.both(["info", name], in: folder)
        func sentence(_ finished: Finished) -> String { finished.errorText.split(separator: ": ", maxSplits: 1).last.map(String.init) ?? "" }
        #expect(sentence(ours) == sentence(theirs))
    }
}
