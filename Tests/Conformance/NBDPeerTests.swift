import Foundation
import StrataTesting
import Testing

/// Further programs of others as clients of our server, and what our client says of servers beside what QEMU's says.
@Suite("NBD: more peers")
struct NBDPeerTests {
    /// A chain with data, holes, zeroes and a bitmap, open in a storage daemon that shows all of it.
    private static func serving(_ program: String?, in folder: TemporaryFolder) throws -> Daemon {
        try QEMU.img("create", "-f", "qcow2", "base.qcow2", "8M", in: folder)
        try QEMU.io("base.qcow2", ["write -P 3 0 3M"], in: folder)
        try QEMU.img("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2", in: folder)
        try QEMU.img("bitmap", "--add", "top.qcow2", "changes", in: folder)
        try QEMU.io("top.qcow2", ["write -P 5 1M 128k", "write -z 2M 256k", "write -P 6 5M 64k"], in: folder)
        let daemon = try Daemon(program: program, in: folder)
        try daemon.monitor.execute("blockdev-add", ["driver": "file", "node-name": "base-file", "filename": "base.qcow2", "read-only": true])
        try daemon.monitor.execute("blockdev-add", ["driver": "qcow2", "node-name": "base", "file": "base-file", "read-only": true])
        try daemon.monitor.execute("blockdev-add", ["driver": "file", "node-name": "file", "filename": "top.qcow2"])
        try daemon.monitor.execute("blockdev-add", ["driver": "qcow2", "node-name": "disk", "file": "file", "backing": "base"])
        try daemon.monitor.execute(
            "block-export-add",
            ["type": "nbd", "id": "e", "node-name": "disk", "name": "disk", "writable": true, "allocation-depth": true, "bitmaps": ["changes"]])
        return daemon
    }

    @Test("nbdinfo maps every context of ours as it maps QEMU's, in text and in JSON", arguments: ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:changes"])
    func maps(context: String) throws {
        var texts: [String] = []
        for program in [nil, "qemu-storage-daemon"] {
            let folder = try TemporaryFolder()
            let daemon = try Self.serving(program, in: folder)
            // libnbd numbers what it does not know by itself.
            texts.append(try mustRun("nbdinfo", ["--map=\(context)", daemon.uri("disk")]).text + mustRun("nbdinfo", ["--json", "--map=\(context)", daemon.uri("disk")]).text
                + mustRun("nbdinfo", ["--totals", "--map=\(context)", daemon.uri("disk")]).text)
            try daemon.quit()
        }
        #expect(texts[0] == texts[1] && texts[0].contains("5242880"))
    }

    /// Writes, asks for zeroes that must not be written out as data, and reads.
    private static let fastZero = ["-f", "raw", "-c", "write -P 3 0 128k", "-c", "write -z -n 0 64k", "-c", "read -P 0 0 64k", "-c", "read -P 3 64k 64k"]

    private static func withoutRates(_ text: String) -> String {
        text.split(separator: "\n").filter { !$0.contains("ops;") }.joined(separator: "\n")
    }

    @Test(
        "zeroes that must be fast are asked for as QEMU asks for them, whatever the server makes of it",
        arguments: [[], ["zeromode=emulate"], ["zeromode=emulate", "fastzeromode=slow"], ["fastzeromode=none"], ["fastzeromode=slow"], ["zeromode=notrim"]])
    func fastZeroOfOthers(settings: [String]) throws {
        let texts = try [["qemu-io"], [Strata.binary, "io"]].map { tool in
            let command = (tool + Self.fastZero).map { "'\($0)'" }.joined(separator: " ")
            let finished = try run("nbdkit", ["-U", "-"] + (settings.isEmpty ? [] : ["--filter=nozero"]) + ["memory", "1M"] + settings + ["--run", command + " $uri"])
            return "\(finished.ending) \(Self.withoutRates(finished.text)) \(finished.errorText)"
        }
        #expect(texts[0] == texts[1])
        if settings.isEmpty { #expect(texts[0].hasPrefix("exited(0)")) }
    }

    @Test("our server makes zeroes fast where QEMU's does")
    func fastZeroOfOurs() throws {
        let texts = try [nil, "qemu-storage-daemon"].map { program in
            let folder = try TemporaryFolder()
            let daemon = try Self.serving(program, in: folder)
            let finished = try run("qemu-io", Self.fastZero + [daemon.uri("disk")])
            try daemon.quit()
            return "\(finished.ending) \(Self.withoutRates(finished.text)) \(finished.errorText)"
        }
        #expect(texts[0] == texts[1] && texts[0].hasPrefix("exited(0)"), "\(texts)")
    }

    @Test("nbddump prints our export as it prints the same bytes of another server")
    func dump() throws {
        let folder = try TemporaryFolder()
        let contents = mixedContents(300_032, seed: runSeed)  // whole sectors: a raw node has no others
        try folder.write(contents, to: "disk.raw")
        let daemon = try Daemon(in: folder)
        try daemon.serve("disk.raw", format: "raw")
        let ours = try mustRun("nbddump", [daemon.uri("disk")])
        let theirs = try mustRun("nbdkit", ["-U", "-", "-r", "file", folder.path("disk.raw"), "--run", "nbddump \"$uri\""])
        #expect(ours.text == theirs.text)
        try daemon.quit()
    }

    /// In a mount namespace of its own, so that nothing stays mounted whatever happens. nbdfuse takes no files from an URI: root's certificates are
    /// those under /etc.
    private static let mounting = """
        set -e
        mkdir mount
        if [[ $2 ]]; then
            cp -a /etc etc
            mkdir -p etc/pki
            cp -r "$2" etc/pki/libnbd
            mount --bind etc /etc
        fi
        nbdfuse mount/disk "$1" & fuse=$!
        until [[ -e mount/disk ]]; do kill -0 $fuse; sleep 0.02; done
        stat -c %s mount/disk
        cmp mount/disk expected
        dd if=new of=mount/disk bs=60k conv=notrunc,fsync status=none
        cmp -n "$(stat -c %s new)" mount/disk new
        umount mount
        wait $fuse
        """

    @Test("nbdfuse makes a file of our export, which reads and writes as the disk does, in clear and over TLS", arguments: [false, true])
    func fuse(encrypted: Bool) throws {
        let folder = try TemporaryFolder()
        let contents = mixedContents(2 << 20, seed: runSeed), changed = mixedContents(700_000, seed: runSeed &+ 1)
        for (name, bytes) in [("disk.raw", contents), ("expected", contents), ("new", changed)] { try folder.write(bytes, to: name) }
        if encrypted { try TestCertificates.make(in: folder) }
        let daemon = try Daemon(
            (encrypted ? ["--object", "tls-creds-x509,id=t,dir=\(folder.url.path),endpoint=server"] : []) + ["--blockdev", "driver=file,node-name=disk,filename=disk.raw",
             "--nbd-server", "addr.type=unix,addr.path=fuse.sock\(encrypted ? ",tls-creds=t" : "")", "--export", "nbd,id=e,node-name=disk,name=disk,writable=on"], nbd: false, in: folder)
        let uri = encrypted ? "nbds+unix://alice@/disk?socket=\(folder.path("fuse.sock"))&tls-hostname=localhost" : "nbd+unix:///disk?socket=\(folder.path("fuse.sock"))"
        let done = try run(
            "unshare", ["-m", "--propagation", "private", "bash", "-c", Self.mounting, "bash", uri, encrypted ? folder.path("alice") : ""], in: folder.url)
        #expect(done.succeeded && done.text == "2097152\n", "\(done)")
        try daemon.quit()
        #expect(firstDifference(try folder.read("disk.raw"), changed + contents[changed.count...]) == nil)
    }

    @Test("of a dirty bitmap that a server shows, x-dirty-bitmap tells the same by either client's map")
    func dirtyBitmap() throws {
        let folder = try TemporaryFolder()
        let daemon = try Self.serving("qemu-storage-daemon", in: folder)
        let options = "driver=nbd,server.type=unix,server.path=\(daemon.nbdPath),export=disk"
        for context in ["", ",x-dirty-bitmap=qemu:dirty-bitmap:changes", ",x-dirty-bitmap=qemu:allocation-depth", ",x-dirty-bitmap=base:allocation"] {
            let theirs = try mustRun("qemu-img", ["map", "--output=json", "--image-opts", options + context])
            let ours = try Strata.mustImg("map", "--output=json", "--image-opts", options + context, in: folder)
            #expect(try JSON(parsing: ours.output) == JSON(parsing: theirs.output), "\(context): \(ours.text) \(theirs.text)")
        }
        for context in ["qemu:dirty-bitmap:none", "nonsense"] {
            let theirs = try run("qemu-img", ["map", "--image-opts", options + ",x-dirty-bitmap=" + context])
            let ours = try Strata.img("map", "--image-opts", options + ",x-dirty-bitmap=" + context, in: folder)
            #expect(ours.ending == theirs.ending && ours.errorText.hasSuffix("requested x-dirty-bitmap \(context) not found\n"), "\(ours)")
        }
        try daemon.quit()
    }

    @Test("nbdcopy and both convert tools carry a disk from our server through our client and back")
    func pair() throws {
        let folder = try TemporaryFolder()
        let contents = mixedContents(12 << 20, seed: runSeed &+ 2)
        try folder.write(contents, to: "source.raw")
        try folder.write([], to: "target.raw")
        #expect(truncate(folder.path("target.raw"), 12 << 20) == 0)
        let back = try Daemon(in: folder)
        try back.serve("source.raw", format: "raw", as: "source")
        try back.serve("target.raw", format: "raw", as: "target")
        // A second daemon whose disks are the first one's exports.
        let middle = try TemporaryFolder()
        var words: [String] = []
        for name in ["source", "target"] {
            words += ["--blockdev", "driver=nbd,node-name=\(name),server.type=unix,server.path=\(back.nbdPath),export=\(name),multi-conn=2"]
        }
        let front = try Daemon(words, in: middle)
        for name in ["source", "target"] {
            try front.monitor.execute("block-export-add", ["type": "nbd", "id": .string(name), "node-name": .string(name), "name": .string(name), "writable": true])
        }
        try mustRun("nbdcopy", ["--connections=4", "--requests=64", "--flush", front.uri("source"), front.uri("target")])
        #expect(firstDifference(try folder.read("target.raw"), contents) == nil)
        for tool in ["qemu-img", Strata.binary] {
            try mustRun(tool, (tool == "qemu-img" ? [] : ["img"]) + ["convert", "-f", "raw", "-O", "raw", front.uri("source"), folder.path("copy.raw")])
            #expect(firstDifference(try folder.read("copy.raw"), contents) == nil)
        }
        try front.quit()
        try back.quit()
    }

    @Test("where no server is, the error names the address and the cause in the words that users know", arguments: [
        "nbd+unix:///disk?socket=/nowhere/nbd.sock", "nbd://localhost:1/disk", "nbd://127.0.0.1:1", "nbd://no-such-host.invalid/disk",
    ])
    func nobodyThere(uri: String) throws {
        let ours = try run(Strata.binary, ["img", "info", uri])
        let theirs = try run("qemu-img", ["info", uri])
        #expect(ours.ending == theirs.ending)
        #expect(ours.errorText.replacing("strata img:", with: "qemu-img:") == theirs.errorText)
    }
}
