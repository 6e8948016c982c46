import Foundation
import StrataTesting
import Testing

@Suite("NBD with clients that are not ours")
struct NBDClientTests {
    /// A daemon that serves a qcow2 image with known contents.
    private func served(_ contents: [UInt8]) throws -> Daemon {
        let folder = try TemporaryFolder()
        try folder.write(contents, to: "source.raw")
        try QEMU.img("convert", "-f", "raw", "-O", "qcow2", "source.raw", "disk.qcow2", in: folder)
        let daemon = try Daemon(in: folder)
        try daemon.serve("disk.qcow2")
        return daemon
    }

    @Test("nbdinfo sees the export, its size and what it can do")
    func information() throws {
        let daemon = try served(mixedContents(1 << 20, seed: runSeed))
        let list = try JSON(parsing: try mustRun("nbdinfo", ["--list", "--json", "nbd+unix:///?socket=\(daemon.nbdPath)"]).output)
        #expect(list["protocol"] == "newstyle-fixed")
        #expect(list["exports"]?.array?.count == 1)
        let export = try JSON(parsing: try mustRun("nbdinfo", ["--json", daemon.uri("disk")]).output)
        #expect(export["structured"] == true)
        let first = try #require(export["exports"]?[0])
        #expect(first["export-name"] == "disk")
        #expect(first["export-size"] == 1_048_576)
        for ability in ["can_flush", "can_fua", "can_trim", "can_zero", "can_cache", "can_multi_conn"] {
            #expect(first[ability] == true, "\(ability)")
        }
        #expect(first["is_read_only"] == false)
        #expect(first["contexts"]?.array?.contains("base:allocation") == true)
        try daemon.quit()
    }

    @Test("base:allocation tells data from holes")
    func allocation() throws {
        var contents = [UInt8](repeating: 0, count: 4 << 20)
        contents.replaceSubrange((1 << 20)..<(2 << 20), with: repeatElement(7, count: 1 << 20))
        let daemon = try served(contents)
        let map = try JSON(parsing: try mustRun("nbdinfo", ["--map", "--json", daemon.uri("disk")]).output)
        // type: bit 0 is a hole, bit 1 reads as zeros
        #expect(map.array?.compactMap { $0["offset"]?.integer } == [0, 1 << 20, 2 << 20])
        #expect(map.array?.compactMap { $0["type"]?.integer } == [3, 0, 3])
        try daemon.quit()
    }

    @Test("nbdcopy copies in and out with many requests and connections")
    func copy() throws {
        let size = 24 << 20
        let daemon = try served([UInt8](repeating: 0, count: size))
        let contents = mixedContents(size, seed: runSeed &+ 5)
        try daemon.folder.write(contents, to: "in.raw")
        try mustRun("nbdcopy", ["--connections=4", "--requests=64", daemon.folder.path("in.raw"), daemon.uri("disk")])
        try mustRun("nbdcopy", ["--connections=4", "--requests=64", daemon.uri("disk"), daemon.folder.path("out.raw")])
        #expect(firstDifference(try daemon.folder.read("out.raw"), contents) == nil, "seed \(runSeed)")
        try daemon.quit()
        try QEMU.mustFindClean("disk.qcow2", in: daemon.folder)
        #expect(firstDifference(try QEMU.contents(of: "disk.qcow2", in: daemon.folder), contents) == nil, "seed \(runSeed)")
    }

    @Test("fio's verified random load finds every block as it wrote it", arguments: ["raw", "qcow2"])
    func fioVerify(format: String) throws {
        let folder = try TemporaryFolder()
        try Strata.mustImg("create", "-f", format, "disk", "64M", in: folder)
        let daemon = try Daemon(in: folder)
        try daemon.serve("disk", format: format)
        let finished = try run(
            "fio",
            [
                "--name=verify", "--ioengine=nbd", "--uri=\(daemon.uri("disk"))", "--rw=randwrite", "--bsrange=512-128k", "--blockalign=512",
                "--size=64M", "--io_size=\(extendedRun ? "256M" : "48M")", "--iodepth=16", "--verify=crc32c", "--verify_fatal=1", "--randseed=\(runSeed % 100_000)",
                "--fsync=64", "--minimal",
            ], in: folder.url, atMost: .seconds(240))
        #expect(finished.succeeded, "\(finished)")
        #expect(!(finished.text + finished.errorText).contains("verify:"), "\(finished)")
        try daemon.quit()
        if format == "qcow2" { try QEMU.mustFindClean("disk", in: folder) }
    }

    @Test("QEMU as a client reads, writes, zeroes and discards")
    func qemuAsClient() throws {
        let daemon = try served([UInt8](repeating: 0x11, count: 1 << 20))
        let finished = try mustRun(
            "qemu-io",
            [
                "-f", "raw", "-c", "read -P 0x11 0 1M", "-c", "write -P 0x22 1000 3000", "-c", "read -P 0x22 1000 3000", "-c", "write -z 64k 128k",
                "-c", "read -P 0 64k 128k", "-c", "write -f -P 0x33 512k 4k", "-c", "discard 768k 64k", "-c", "flush", "-c", "read -P 0x33 512k 4k", daemon.uri("disk"),
            ])
        #expect(!finished.text.contains("failed") && !finished.text.contains("rror"), "\(finished)")
        let map = try JSON(parsing: try mustRun("qemu-img", ["map", "--output=json", "-f", "raw", daemon.uri("disk")]).output)
        #expect(map.array?.contains { $0["zero"] == true } == true)
        try daemon.quit()
        try QEMU.mustFindClean("disk.qcow2", in: daemon.folder)
    }

    @Test("nbdkit as a proxy passes our export on")
    func throughNbdkit() throws {
        let contents = mixedContents(4 << 20, seed: runSeed &+ 9)
        let daemon = try served(contents)
        let finished = try run(
            "nbdkit",
            [
                "--exit-with-parent", "-U", "-", "nbd", "uri=\(daemon.uri("disk"))", "--run",
                "nbdcopy \"$uri\" '\(daemon.folder.path("out.raw"))'",
            ], in: daemon.folder.url)
        #expect(finished.succeeded, "\(finished)")
        #expect(firstDifference(try daemon.folder.read("out.raw"), contents) == nil)
        try daemon.quit()
    }

    @Test("two clients see each other's flushed writes")
    func twoClients() throws {
        let daemon = try served([UInt8](repeating: 0, count: 1 << 20))
        let first = try PlainNBDClient(path: daemon.nbdPath, export: "disk"), second = try PlainNBDClient(path: daemon.nbdPath, export: "disk")
        var generator = SeededGenerator(seed: runSeed)
        for _ in 0..<50 {
            let data = randomBytes(Int.random(in: 1...20_000, using: &generator), using: &generator)
            let offset = Int.random(in: 0...(1 << 20) - data.count, using: &generator)
            try first.write(data, at: offset)
            try first.flush()
            #expect(try second.read(data.count, at: offset) == data)
        }
        try daemon.quit()
    }
}
