import Foundation
import StrataTesting
import Testing

/// Images that get their backing file after they were written to, as incremental backups do, and options for backing files.
@Suite("images and the backing files that they get later")
struct LaterBackingTests {
    @Test(
        "zeroes that somebody wrote stay zeroes when the image gets a backing file", arguments: ["", "extended_l2=on", "cluster_size=4k", "compat=0.10"],
        [
            "write -q -z 64k 64k", "write -q -z -u 64k 64k", "write -q -z 64k 2k", "write -q -z 70k 120k", "write -q -z 1000 300", "write -q -z 0 1M",
            "write -q -z 127k 2k", "discard -q 192k 64k",
        ])
    func zeroes(option: String, command: String) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        let made = ["create", "-q", "-f", "qcow2"] + (option.isEmpty ? [] : ["-o", option]) + ["a.qcow2", "1M"]
        try pair.prepare([
            ["create", "-q", "-f", "qcow2", "base.qcow2", "1M"], ["io", "-c", "write -q -P 5 0 1M", "base.qcow2"], made,
        ])
        let commands = ["-d", "unmap", "-c", "write -q -P 1 200k 10k", "-c", command, "a.qcow2"]
        try mustRun("qemu-io", commands, in: pair.theirs)
        #expect(try pair.runOurIO(commands, in: pair.ours).status == 0)
        var disks: [[UInt8]] = []
        for folder in [pair.theirs, pair.ours] {
            try mustRun("qemu-img", ["rebase", "-u", "-b", "base.qcow2", "-F", "qcow2", "a.qcow2"], in: folder)
            try mustRun("qemu-img", ["check", "-q", "a.qcow2"], in: folder)
            try mustRun("qemu-img", ["convert", "-O", "raw", "a.qcow2", "a.raw"], in: folder)
            disks.append([UInt8](try Data(contentsOf: folder.appendingPathComponent("a.raw"))))
        }
        #expect(firstDifference(disks[1], disks[0]) == nil)
        // In version 2 there is no way to say so without data.
        if option != "compat=0.10", command.contains("-z") { #expect(disks[1].contains(0)) }
    }

    @Test("options for a backing file leave its name and format to the image")
    func partialOptions() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        let secret = ["--object", "secret,id=s,data=abc"]
        try pair.prepare([
            ["create", "-q"] + secret + ["-f", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "key.qcow2", "1M"],
            ["create", "-q", "-f", "qcow2", "-b", "key.qcow2", "-F", "qcow2", "over.qcow2", "1M"],
            ["create", "-q", "-f", "qcow2", "-b", "over.qcow2", "-F", "qcow2", "top.qcow2", "1M"],
            ["create", "-q", "-f", "raw", "r.raw", "1M"], ["io", "-f", "raw", "-c", "write -q -P 7 0 1M", "r.raw"],
            ["create", "-q", "-f", "qcow2", "-b", "r.raw", "-F", "raw", "p.qcow2"],
            ["create", "-q", "-f", "qcow2", "alone.qcow2", "1M"],
        ])
        let options = [
            "driver=qcow2,file.filename=over.qcow2,backing.encrypt.key-secret=s", "driver=qcow2,file.filename=over.qcow2,backing.driver=qcow2,backing.encrypt.key-secret=s",
            "driver=qcow2,file.filename=top.qcow2,backing.backing.encrypt.key-secret=s", "file.filename=over.qcow2,backing.encrypt.key-secret=s",
            "driver=qcow2,file.filename=p.qcow2,backing.file.locking=off", "driver=qcow2,file.filename=p.qcow2,backing.driver=raw",
            "driver=qcow2,file.filename=p.qcow2,backing.driver=raw,backing.offset=512", "driver=qcow2,file.filename=p.qcow2,backing.file.filename=r.raw",
            "driver=qcow2,file.filename=p.qcow2,backing.driver=qcow2", "driver=qcow2,file.filename=over.qcow2,backing.encrypt.key-secret=other",
        ]
        for option in options {
            let arguments = ["convert"] + secret + ["--image-opts", option, "-O", "raw", "out.raw"]
            try pair.removeImages(["out.raw"])
            let (theirs, ours) = (try pair.runTheirs(arguments), try pair.runOurs(arguments))
            #expect(ours.status == theirs.status, "\(option): \(ours) \(theirs)")
            if theirs.status == 0 {
                let disks = try [pair.theirs, pair.ours].map { try Data(contentsOf: $0.appendingPathComponent("out.raw")) }
                #expect(disks[0] == disks[1], "\(option)")
            }
        }
        let json = ["info"] + secret + [#"json:{"driver":"qcow2","file.filename":"over.qcow2","backing.encrypt.key-secret":"s"}"#]
        #expect(try pair.runOurs(json).status == pair.runTheirs(json).status)
    }

    @Test("rebase notes zeroes that the new base would hide, also where it compresses", arguments: [["rebase"], ["rebase", "-c"]])
    func rebase(_ command: [String]) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([
            ["create", "-q", "-f", "qcow2", "base.qcow2", "4M"], ["io", "-c", "write -q -P 2 0 64k", "base.qcow2"], ["create", "-q", "-f", "qcow2", "t.qcow2", "4M"],
        ])
        for arguments in [command + ["-b", "base.qcow2", "-F", "qcow2", "t.qcow2"], ["map", "--output=json", "t.qcow2"]] {
            #expect(try pair.runOurs(arguments) == pair.runTheirs(arguments))
        }
    }

    @Test("a new raw file has its first block on the disk, as QEMU's have")
    func firstBlock() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        for size in ["1M", "1000", "5000", "0"] {
            for line in ["create -q -f raw a.raw \(size)", "map --output=json -f raw a.raw", "measure -f raw -O qcow2 a.raw", "convert -O raw a.raw b.raw", "map --output=json -f raw b.raw"] {
                let arguments = line.split(separator: " ").map(String.init)
                #expect(try pair.runOurs(arguments) == pair.runTheirs(arguments), "\(line), \(size)")
            }
            try pair.removeImages(["a.raw", "b.raw"])
        }
    }

    @Test("a disk that is full leaves nothing lost in the image, and gets back what a refused resize took")
    func fullDisk() throws {
        let disk = try MountedFileSystem("ext4", byteCount: 24 << 20, ["-O", "^has_journal"])
        defer { disk.unmount() }
        let pair = try ToolPair(in: disk.folder.url)
        let image = "\(disk.path)/o"
        try mustRun("qemu-img", ["create", "-q", "-f", "qcow2", image, "8M"])
        let resized = try pair.runOurs(["resize", "--preallocation=full", image, "64M"])
        #expect(resized.status == 1 && resized.errors.contains("No space left on device"), "\(resized)")
        try mustRun("qemu-img", ["check", image])
        let info = try JSON(parsing: try mustRun("qemu-img", ["info", "--output=json", image]).output)
        #expect(info["virtual-size"]?.integer == 8 << 20)
        #expect((info["actual-size"]?.integer ?? .max) < 2 << 20, "\(info)")
        try mustRun("rm", [image])

        // A commit that runs into the end keeps what it has brought so far.
        try mustRun("qemu-img", ["create", "-q", "-f", "qcow2", image, "64M"])
        let over = disk.folder.path("over.qcow2")
        try mustRun("qemu-img", ["create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", over])
        try mustRun("qemu-io", ["-c", "write -q -P 1 0 64M", over])
        let committed = try pair.runOurs(["commit", over])
        #expect(committed.status == 1 && committed.errors.contains("No space left on device"), "\(committed)")
        let check = try JSON(parsing: try mustRun("qemu-img", ["check", "--output=json", image]).output)
        #expect((check["allocated-clusters"]?.integer ?? 0) > 100, "\(check)")
    }
}
