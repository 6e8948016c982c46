import Foundation
import StrataTesting
import Testing

/// Disks whose end lies inside a unit of O_DIRECT: 4096 bytes, on a file system over a device with such sectors.
@Suite("disks of odd sizes with O_DIRECT")
struct OddSizeTests {
    private static let length = (1 << 20) + 512

    @Test("how a file is read does not change how long the disk is, and a copy is as long as its source")
    func conversion() throws {
        let mounted = try MountedFileSystem("ext4", byteCount: 32 << 20, sectorSize: 4096)
        defer { mounted.unmount() }
        let folder = URL(filePath: mounted.path, directoryHint: .isDirectory)
        let contents = mixedContents(Self.length, seed: runSeed)
        try Data(contents).write(to: folder.appending(path: "source.raw"))
        try mustRun(Strata.binary, ["img", "convert", "-T", "none", "-f", "raw", "-O", "qcow2", "source.raw", "a.qcow2"], in: folder)
        #expect(try mustRun("qemu-img", ["compare", "-f", "raw", "-F", "qcow2", "source.raw", "a.qcow2"], in: folder).text == "Images are identical.\n")
        // The part behind the window's start ends in the middle of a unit, too.
        for (name, options, expected) in [
            ("whole.raw", "driver=raw,file.filename=source.raw", contents[...]),
            ("window.raw", "driver=raw,offset=512,file.filename=source.raw", contents[512...]),
            ("end.raw", "driver=raw,offset=4096,size=512,file.filename=source.raw", contents[4096..<4608]),
        ] {
            try mustRun(Strata.binary, ["img", "convert", "-T", "none", "-t", "none", "--image-opts", "-O", "raw", options, name], in: folder)
            #expect(try Data(contentsOf: folder.appending(path: name)) == Data(expected), "\(name)")
        }
        // Into an existing disk: nothing behind its end is left.
        try Data(repeating: 1, count: Self.length).write(to: folder.appending(path: "old.raw"))
        try mustRun(Strata.binary, ["img", "convert", "-n", "-t", "none", "-f", "raw", "-O", "raw", "source.raw", "old.raw"], in: folder)
        #expect(try Data(contentsOf: folder.appending(path: "old.raw")) == Data(contents))
    }

    @Test("who may write and not resize is refused, in QEMU's words, and who only reads sees the whole disk")
    func permission() throws {
        let mounted = try MountedFileSystem("ext4", byteCount: 32 << 20, sectorSize: 4096)
        defer { mounted.unmount() }
        let contents = mixedContents(Self.length, seed: runSeed)
        try Data(contents).write(to: URL(filePath: mounted.path + "/disk.raw"))
        var answers: [[String]] = []
        for program in [nil, "qemu-storage-daemon"] {
            let daemon = try Daemon(program: program, in: try TemporaryFolder())
            try daemon.monitor.execute(
                "blockdev-add", ["driver": "file", "node-name": "f", "filename": .string(mounted.path + "/disk.raw"), "cache": ["direct": true]])
            var said: [String] = []
            for isWritable in [true, false] {
                do {
                    try daemon.monitor.execute("block-export-add", ["type": "nbd", "id": "e", "node-name": "f", "writable": .bool(isWritable)])
                    said.append("exported")
                } catch let refusal as QMPLineClient.Refusal { said.append(refusal.description) }
            }
            said.append(try mustRun("nbdinfo", ["--size", daemon.uri("f")]).text)
            // What QEMU's server says of its blocks (4096 bytes at least) its own clients refuse for a disk of such a size.
            if program == nil {
                try mustRun("qemu-img", ["convert", "-f", "raw", "-O", "raw", daemon.uri("f"), daemon.folder.path("copy")])
                #expect(try daemon.folder.read("copy") == contents)
            }
            answers.append(said)
            try daemon.quit()
        }
        #expect(answers[0] == answers[1])
        #expect(answers[0][0].contains("Image size is not a multiple of request alignment"))
    }
}
