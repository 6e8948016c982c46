import Foundation
import QAPIRuntime
import StrataTesting
import Testing

@Suite("a daemon's life")
struct DaemonLifeTests {
    private static let disk = ["--blockdev", "file,node-name=disk,filename=disk.img"]
    private static let server = ["--nbd-server", "addr.type=unix,addr.path=nbd.sock", "--export", "nbd,id=e,node-name=disk,writable=on"]

    private static func scratchWithDisk() throws -> Scratch {
        let scratch = try Scratch()
        try scratch.write("disk.img", [UInt8](repeating: 0, count: 1 << 20))
        return scratch
    }

    @Test("nodes, server and export come and go over QMP, and quit leaves nothing behind")
    func controlledOverQMP() throws {
        let scratch = try Self.scratchWithDisk()
        let daemon = try RunningDaemon(["--pidfile", "pid"], scratch: scratch)
        let monitor = daemon.monitor
        #expect(try monitor.execute("blockdev-add", ["driver": "file", "node-name": "disk", "filename": "disk.img"]) == ["return": [:]])
        #expect(try monitor.execute("query-named-block-nodes")["return"]?[0]?["node-name"] == "disk")
        #expect(try monitor.execute("nbd-server-start", ["addr": ["type": "unix", "data": ["path": "nbd.sock"]]]) == ["return": [:]])
        #expect(try monitor.execute("block-export-add", ["type": "nbd", "id": "e", "node-name": "disk"]) == ["return": [:]])
        #expect(try monitor.execute("nosuch")["error"]?["class"] == "CommandNotFound")
        #expect(try monitor.execute("query-block-exports")["return"]?[0]?["id"] == "e")
        #expect(try String(decoding: scratch.read("pid"), as: UTF8.self) == "\(daemon.process.identifier)\n")
        #expect(try monitor.execute("quit") == ["return": [:]])
        #expect(try daemon.waitForEnd() == .exited(0))
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == ["disk.img"])
    }

    @Test("SIGTERM and SIGINT end it in order: what clients have written is in the file", arguments: [SIGTERM, SIGINT])
    func endedBySignal(signal: Int32) throws {
        let scratch = try Self.scratchWithDisk()
        let daemon = try RunningDaemon(Self.disk + Self.server + ["--pidfile", "pid"], scratch: scratch)
        let uri = "nbd+unix:///disk?socket=" + scratch.file("nbd.sock")
        let written = try run("/usr/bin/qemu-io", ["-f", "raw", "-c", "write -P 0x33 64k 64k", uri])
        #expect(written.status == 0, "\(written.complaint)")
        daemon.process.send(signal)
        #expect(try daemon.waitForEnd() == .exited(0))
        let bytes = try scratch.read("disk.img")
        #expect(bytes[65536..<131072].allSatisfy { $0 == 0x33 } && bytes[..<65536].allSatisfy { $0 == 0 })
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == ["disk.img"])
    }

    @Test("in the background it is ready when the command returns, and relative names keep their meaning")
    func background() throws {
        let scratch = try Self.scratchWithDisk()
        let outcome = try runInBackground(["--pidfile", "pid", "--object", "iothread,id=t"] + Self.disk + Self.server, in: scratch.path)
        #expect(outcome.status == 0, "\(outcome.complaint)")
        let uri = "nbd+unix:///disk?socket=" + scratch.file("nbd.sock")
        #expect(try run("/usr/bin/qemu-io", ["-f", "raw", "-c", "read 0 1M", uri]).status == 0)
        let number = try #require(Int32(String(decoding: scratch.read("pid"), as: UTF8.self).dropLast()))
        let again = try run(strata, ["daemon", "--pidfile", "pid"], in: scratch.path)
        #expect(again.status == 1 && again.complaint.contains("Cannot lock pid file 'pid'"))
        kill(number, SIGTERM)
        _ = waitUntil { !scratch.exists("pid") }
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == ["disk.img"])
    }

    @Test("a daemon that cannot start says so through --daemonize too")
    func backgroundFailure() throws {
        let scratch = try Scratch()
        let outcome = try runInBackground(["--blockdev", "file,node-name=a,filename=absent"], in: scratch.path)
        #expect(outcome.status == 1 && outcome.complaint.contains("Could not open 'absent'"))
    }

    @Test("QMP over standard input and output, pretty when asked for")
    func standardStreams() throws {
        let input = #"{"execute": "qmp_capabilities"}{"execute": "query-version", "id": 7}{"execute": "quit"}"#
        let outcome = try run(strata, ["daemon", "--chardev", "stdio,id=c", "--monitor", "c,pretty=on"], input: input)
        #expect(outcome.status == 0, "\(outcome.complaint)")
        #expect(outcome.output.contains("\n        \"version\": {") || outcome.output.contains("\n    \"QMP\": {"))
        #expect(outcome.output.contains("\"id\": 7"))
    }

    @Test("the socket of a daemon that was killed does not keep the next one from starting, and a living one's does")
    func abandonedSocket() throws {
        let scratch = try Self.scratchWithDisk()
        let first = try RunningDaemon([], scratch: scratch)
        let second = try run(strata, ["daemon", "--chardev", "socket,id=c,path=qmp.sock,server=on,wait=off"], in: scratch.path)
        #expect(second.status == 1 && second.complaint.contains("Address already in use"))
        first.process.send(SIGKILL)
        _ = try first.waitForEnd()
        #expect(scratch.exists("qmp.sock"))
        let third = try RunningDaemon([], scratch: scratch)
        #expect(try third.monitor.execute("quit") == ["return": [:]])
        #expect(try third.waitForEnd() == .exited(0))
    }

    @Test("a file that is not a socket is never removed to make room for one")
    func fileInTheWay() throws {
        let scratch = try Self.scratchWithDisk()
        let outcome = try run(strata, ["daemon", "--chardev", "socket,id=c,path=disk.img,server=on,wait=off"], in: scratch.path)
        #expect(outcome.status == 1)
        #expect(try scratch.read("disk.img").count == 1 << 20)
    }

    @Test("a client who comes early is answered when all of the command line is carried out")
    func earlyClient() throws {
        let scratch = try Self.scratchWithDisk()
        let arguments = [
            "--chardev", "socket,id=c,path=qmp.sock,server=on,wait=off", "--monitor", "c",
            "--blockdev", "driver=nbd,node-name=n,server.type=unix,server.path=peer.sock,open-timeout=60", "--blockdev", "driver=null-co,node-name=last",
        ]
        let process = try startDaemon(arguments, scratch: scratch)
        defer { process.send(SIGKILL) }
        // What the daemon needs comes only when the client has asked.
        let client = try EarlyClient(connectingTo: scratch.file("qmp.sock"), of: process)
        try client.send(#"{"execute": "qmp_capabilities"} {"execute": "query-named-block-nodes", "arguments": {"flat": true}} {"execute": "quit"}"#)
        #expect(try run("/usr/bin/qemu-nbd", ["--fork", "-f", "raw", "-k", scratch.file("peer.sock"), scratch.file("disk.img")]).status == 0)
        let answers = try client.everything()
        #expect(try process.wait().succeeded)
        #expect(answers.contains("\"QMP\"") && answers.contains("\"node-name\": \"last\""), "\(answers)")
    }

    @Test("with wait=on the options that follow wait for the first client, who is then served")
    func waitsForClient() throws {
        let scratch = try Self.scratchWithDisk()
        let process = try startDaemon(["--chardev", "socket,id=c,path=w.sock,server=on", "--monitor", "c", "--pidfile", "pid"], scratch: scratch)
        defer { process.send(SIGKILL) }
        let monitor = try MonitorClient(connectingTo: scratch.file("w.sock"), of: process)
        #expect(try monitor.execute("query-block-exports") == ["return": []])
        #expect(try monitor.execute("quit") == ["return": [:]])
        #expect(try process.wait().succeeded)
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path) == ["disk.img"])
    }
}
