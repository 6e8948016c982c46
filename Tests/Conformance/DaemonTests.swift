import Foundation
import StrataTesting
import Testing

@Suite("the daemon")
struct DaemonTests {
    @Test("the main job: chain made by the tool, nodes added over QMP, data in and out through nbdcopy, clean at the end")
    func mainJob() throws {
        let folder = try TemporaryFolder()
        let size = 8 << 20
        let first = mixedContents(size, seed: runSeed), second = mixedContents(size, seed: runSeed &+ 1)
        try folder.write(first, to: "first.raw")
        try folder.write(second, to: "second.raw")
        try Strata.mustImg("convert", "-f", "raw", "-O", "qcow2", "first.raw", "base.qcow2", in: folder)
        try Strata.mustImg("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "overlay.qcow2", in: folder)
        let before = try folder.read("base.qcow2")

        let daemon = try Daemon(nbd: false, in: folder)
        let monitor = daemon.monitor
        try monitor.execute("nbd-server-start", ["addr": ["type": "unix", "data": ["path": .string(daemon.nbdPath)]]])
        try monitor.execute(
            "blockdev-add", ["driver": "file", "node-name": "base-file", "filename": "base.qcow2", "auto-read-only": true])
        try monitor.execute("blockdev-add", ["driver": "qcow2", "node-name": "base", "file": "base-file", "read-only": true])
        try daemon.serve("overlay.qcow2", backing: "base")

        let nodes = try #require(try monitor.execute("query-named-block-nodes", ["flat": true]).array)
        #expect(Set(nodes.compactMap { $0["node-name"]?.string }) == ["base-file", "base", "disk-file", "disk"])
        let exports = try #require(try monitor.execute("query-block-exports").array)
        #expect(exports.count == 1)
        #expect(exports.first?["id"] == "disk")
        #expect(exports.first?["node-name"] == "disk")
        #expect(exports.first?["type"] == "nbd")

        try mustRun("nbdcopy", [daemon.uri("disk"), folder.path("seen-first.raw")])
        #expect(firstDifference(try folder.read("seen-first.raw"), first) == nil)
        try mustRun("nbdcopy", [folder.path("second.raw"), daemon.uri("disk")])
        try mustRun("nbdcopy", [daemon.uri("disk"), folder.path("seen-second.raw")])
        #expect(firstDifference(try folder.read("seen-second.raw"), second) == nil)

        try monitor.execute("block-export-del", ["id": "disk"])
        _ = try monitor.event("BLOCK_EXPORT_DELETED")
        for node in ["disk", "disk-file", "base", "base-file"] { try monitor.execute("blockdev-del", ["node-name": .string(node)]) }
        #expect(try monitor.execute("query-named-block-nodes") == [])
        try monitor.execute("nbd-server-stop")
        try daemon.quit()
        #expect(!folder.contains("nbd.sock"), "the NBD socket was left behind")

        #expect(try folder.read("base.qcow2") == before, "the backing image changed")
        try QEMU.mustFindClean("overlay.qcow2", in: folder)
        #expect(firstDifference(try QEMU.contents(of: "overlay.qcow2", in: folder), second) == nil)
    }

    @Test("--daemonize returns when everything is ready; --pidfile names the process; SIGTERM ends it well")
    func daemonize() throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-f", "qcow2", "disk.qcow2", "1M", in: folder)
        try mustRun(
            Strata.binary,
            [
                "daemon", "--blockdev", "driver=file,node-name=file,filename=disk.qcow2",
                "--blockdev", "driver=qcow2,node-name=disk,file=file",
                "--nbd-server", "addr.type=unix,addr.path=nbd.sock",
                "--export", "type=nbd,id=e,node-name=disk,name=disk,writable=on",
                "--pidfile", "daemon.pid", "--daemonize",
            ], in: folder.url)
        let line = String(decoding: try folder.read("daemon.pid"), as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
        let identifier = try #require(pid_t(line))
        defer { kill(identifier, SIGKILL) }
        // No waiting here: it must be ready.
        let client = try PlainNBDClient(path: folder.path("nbd.sock"), export: "disk")
        try client.write([UInt8](repeating: 0x77, count: 70_000), at: 1000)
        try client.disconnect()
        // The thread that went through the fork has locks that others wait for in vain: it only waits for the one that works.
        let waitsIn = try String(contentsOfFile: "/proc/\(identifier)/task/\(identifier)/wchan", encoding: .utf8)
        #expect(waitsIn.contains("futex"), "\(waitsIn)")
        kill(identifier, SIGTERM)
        #expect(waitUntil { kill(identifier, 0) != 0 }, "SIGTERM did not end the daemon")
        #expect(!folder.contains("daemon.pid"), "the pidfile was left behind")
        try QEMU.mustFindClean("disk.qcow2", in: folder)
    }

    @Test("nodes, exports and iothreads given on the command line are there")
    func commandLine() throws {
        let folder = try TemporaryFolder()
        let disk = mixedContents(1 << 20, seed: runSeed)
        try folder.write(disk, to: "disk.raw")
        let daemon = try Daemon(
            [
                "--object", "iothread,id=io0", "--blockdev", #"{"driver": "file", "node-name": "file", "filename": "disk.raw", "read-only": true}"#,
                "--blockdev", "driver=raw,node-name=disk,file=file,read-only=on",
                "--export", "type=nbd,id=e,node-name=disk,name=disk,iothread=io0",
            ], in: folder)
        let client = try PlainNBDClient(path: daemon.nbdPath, export: "disk")
        #expect(client.transmissionFlags & 2 != 0, "a read-only export must say so")
        #expect(firstDifference(try client.read(1 << 20, at: 0), disk) == nil)
        #expect(throws: PlainNBDClient.Refusal.self) { try client.write([1], at: 0) }
        try client.disconnect()
        try daemon.quit()
        #expect(firstDifference(try folder.read("disk.raw"), disk) == nil)
    }

    @Test("an image open for writing cannot be opened a second time, by us or by QEMU")
    func locks() throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-f", "qcow2", "disk.qcow2", "1M", in: folder)
        let daemon = try Daemon(in: folder)
        try daemon.serve("disk.qcow2")
        let theirs = try run("qemu-io", ["-f", "qcow2", "-c", "write 0 512", "disk.qcow2"], in: folder.url)
        #expect(theirs.ending == .exited(1), "QEMU could write while we serve: \(theirs)")
        let second = try TemporaryFolder()
        let other = try Daemon(in: second)
        #expect(throws: QMPLineClient.Refusal.self) { try other.serve(folder.path("disk.qcow2")) }
        try daemon.monitor.execute("block-export-del", ["id": "disk"])
        try daemon.monitor.execute("blockdev-del", ["node-name": "disk"])
        try daemon.monitor.execute("blockdev-del", ["node-name": "disk-file"])
        try QEMU.io("disk.qcow2", ["write 0 512"], in: folder)
        try other.quit()
        try daemon.quit()
    }

    @Test("a server that is stopped with idle clients connected stops")
    func stopWithIdleClients() throws {
        let folder = try TemporaryFolder()
        try folder.write(repeatElement(1, count: 1 << 20), to: "disk.raw")
        let daemon = try Daemon(in: folder)
        try daemon.serve("disk.raw", format: "raw")
        let idle = try (0..<20).map { _ in try PlainNBDClient(path: daemon.nbdPath, export: "disk") }
        let unnegotiated = try #require(UnixSocket(path: daemon.nbdPath))
        try daemon.monitor.execute("nbd-server-stop")
        for client in idle { #expect(throws: (any Error).self) { try client.read(512, at: 0) } }
        _ = unnegotiated
        try daemon.quit()
    }

    @Test("an idle daemon with a client connected uses no processor time")
    func idle() throws {
        let folder = try TemporaryFolder()
        try folder.write(repeatElement(1, count: 1 << 20), to: "disk.raw")
        let daemon = try Daemon(in: folder)
        try daemon.serve("disk.raw", format: "raw")
        let client = try PlainNBDClient(path: daemon.nbdPath, export: "disk")
        _ = try client.read(512, at: 0)
        func ticks() throws -> Int {
            let fields = try String(contentsOfFile: "/proc/\(daemon.process.identifier)/stat", encoding: .utf8).split(separator: " ")
            return (Int(fields[13]) ?? 0) + (Int(fields[14]) ?? 0)
        }
        // The only measurement of time in the suite: two hundredths of a second in one second is 2 %, and idle is well below that.
        let before = try ticks()
        usleep(1_000_000)
        #expect(try ticks() - before <= 2)
        try client.disconnect()
        try daemon.quit()
    }
}
