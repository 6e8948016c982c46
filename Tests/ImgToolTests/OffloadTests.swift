import Foundation
import StrataTesting
import Testing

@Suite("convert lets the file system copy", .serialized)
struct OffloadTests {
    /// The system calls of one kind that a conversion makes and that succeed.
    private func calls(_ name: String, _ arguments: [String], in folder: URL) throws -> Int {
        let trace = folder.appendingPathComponent("trace").path
        let finished = try run("strace", ["-f", "-o", trace, "-e", "trace=\(name)", ToolPair.binary, "img", "convert"] + arguments, in: folder)
        #expect(finished.succeeded, "\(finished)")
        let text = try String(contentsOfFile: trace, encoding: .utf8)
        return text.split(separator: "\n").count { $0.contains("\(name)(") && ($0.contains("FICLONERANGE") || name != "ioctl") && !$0.contains("= -1") }
    }

    private func write(_ contents: [UInt8], to name: String, in folder: URL) throws { try Data(contents).write(to: folder.appendingPathComponent(name)) }

    @Test("-C copies inside the kernel and leaves the same contents; without it nothing is copied that cannot be shared", arguments: ["raw", "qcow2"])
    func offloading(format: String) throws {
        let folder = try TemporaryFolder()
        let contents = mixedContents(3 << 20, seed: runSeed)
        try write(contents, to: "a.raw", in: folder.url)
        #expect(try calls("copy_file_range", ["-C", "-f", "raw", "-O", format, "a.raw", "o"], in: folder.url) > 0)
        #expect(try calls("copy_file_range", ["-f", "raw", "-O", format, "a.raw", "p"], in: folder.url) == 0)
        for name in ["o", "p"] {
            #expect(firstDifference(try QEMU.contents(of: name, format: format, in: folder), contents) == nil)
        }
    }

    @Test("-C with a source that lies in no file copies in the ordinary way")
    func fallback() throws {
        let folder = try TemporaryFolder()
        let contents = [UInt8](repeating: 7, count: 2 << 20)
        try write(contents, to: "a.raw", in: folder.url)
        try mustRun("qemu-img", ["convert", "-c", "-O", "qcow2", "a.raw", "packed.qcow2"], in: folder.url)
        #expect(try calls("copy_file_range", ["-C", "packed.qcow2", "o"], in: folder.url) == 0)
        #expect(firstDifference(try folder.read("o"), contents) == nil)
    }

    @Test("on a file system that can share blocks the target shares the source's, without being asked for; with -S or -c it does not")
    func sharing() throws {
        let mounted = try MountedFileSystem("xfs", byteCount: 512 << 20, ["-m", "reflink=1"])
        defer { mounted.unmount() }
        let folder = URL(filePath: mounted.path)
        var generator = SeededGenerator(seed: runSeed)
        try write(randomBytes(4 << 20, using: &generator), to: "a.raw", in: folder)
        #expect(try calls("ioctl", ["-f", "raw", "a.raw", "o.raw"], in: folder) > 0)
        let extents = try mustRun("filefrag", ["-v", "o.raw"], in: folder).text
        #expect(extents.contains("shared"), "\(extents)")
        try mustRun("cmp", ["a.raw", "o.raw"], in: folder)
        #expect(try calls("ioctl", ["-f", "raw", "-S", "4k", "a.raw", "p.raw"], in: folder) == 0)
        #expect(try calls("ioctl", ["-f", "raw", "-O", "qcow2", "-c", "a.raw", "p.qcow2"], in: folder) == 0)
        #expect(try calls("ioctl", ["-C", "-f", "raw", "-O", "qcow2", "a.raw", "o.qcow2"], in: folder) > 0)
        try mustRun("qemu-img", ["compare", "-f", "raw", "-F", "qcow2", "a.raw", "o.qcow2"], in: folder)
        try mustRun("qemu-img", ["check", "o.qcow2"], in: folder)
    }
}
