import Foundation
import StrataTesting
import Testing

/// A program at a terminal of its own, driven by Python's pty module: what is typed, when, and what came.
@Suite("the QMP shell at a terminal")
struct QMPShellTests {
    private static let driver = Strata.root.appending(path: "Tests/Conformance/shell-terminal.py").path

    /// Types at `strata qmp` and gives back what the terminal was sent.
    private func shell(_ socket: String, _ steps: [(awaiting: String, typing: JSON)], in folder: TemporaryFolder) throws -> Finished {
        let script = try JSON.array(steps.map { .array([.string($0.awaiting), $0.typing]) }).encoded()
        return try run("python3", [Self.driver, folder.path("state"), String(decoding: script, as: UTF8.self), Strata.binary, "qmp", socket], in: folder.url)
    }

    @Test("commands are completed from the schema, answers and events are shown, the history stays", arguments: [false, true])
    func session(peer: Bool) throws {
        let folder = try TemporaryFolder()
        let socket = folder.path("peer.sock")
        var processes: [ChildProcess] = []
        var daemon: Daemon?
        if peer {
            processes.append(
                try ChildProcess("qemu-storage-daemon", ["--chardev", "socket,id=c,path=\(socket),server=on,wait=off", "--monitor", "c"], in: folder.url))
            try #require(waitUntil { folder.contains("peer.sock") })
        } else {
            daemon = try Daemon(nbd: false, in: folder)
        }
        defer { for process in processes { process.send(SIGKILL) } }
        let first = try shell(
            daemon?.monitorPath ?? socket,
            [
                ("qmp> ", "query-ver\t\r"), ("\"major\"", "blockdev-ad\tdriv\tnull-c\tnode-na\tn0 si\t1M\r"), ("{}", "query-named-block-nodes\r"),
                ("\"node-name\"", "blockdev-del node-name=n\t\r"), ("blockdev-del node-name=n0", "no-such-command\r"),
                ("CommandNotFound", "help blockdev-del\r"), ("node-name: string", "\u{4}"),
            ], in: folder)
        #expect(first.succeeded, "\(first)")
        let history = try String(contentsOfFile: folder.path("state/strata/qmp-history"), encoding: .utf8)
        #expect(history.hasPrefix("query-version \nblockdev-add driver=null-co node-name=n0 size=1M\n"))
        let attributes = try FileManager.default.attributesOfItem(atPath: folder.path("state/strata/qmp-history"))
        #expect((attributes[.posixPermissions] as? Int) == 0o600)
        // What was typed last is there in the next session; Ctrl-C takes the line back; the server goes away under the shell.
        let second = try shell(
            daemon?.monitorPath ?? socket, [("qmp> ", "\u{1b}[A"), ("help blockdev-del", "\u{3}qu\u{12}version\r"), ("\"major\"", "quit\r"), ("closed the connection", "")],
            in: folder)
        #expect(second.ending == .exited(2), "\(second)")
    }

    @Test("JSON may go on over several lines, and is one entry of the history")
    func severalLines() throws {
        let folder = try TemporaryFolder()
        let daemon = try Daemon(nbd: false, in: folder)
        let session = try shell(
            daemon.monitorPath,
            [
                ("qmp> ", "{\r"), ("...> ", "\"execute\": \"query-version\"\r"), ("...> ", "}\r"), ("\"major\"", "blockdev-add {\r"),
                ("...> ", "\u{3}"), ("qmp> ", "blockdev-add {\"driver\": \"null-co\",\r"), ("...> ", "\"node-name\": \"n9\"}\r"), ("{}", "query-named-block-nodes\r"),
                ("\"n9\"", "\u{1b}[A\u{1b}[A"), ("\"node-name\": \"n9\"}", "\u{15}\u{4}"),
            ], in: folder)
        #expect(session.succeeded, "\(session)")
        let history = try String(contentsOfFile: folder.path("state/strata/qmp-history"), encoding: .utf8)
        #expect(history.hasPrefix("{ \"execute\": \"query-version\" }\n"))
        #expect(history.contains("blockdev-add {\"driver\": \"null-co\", \"node-name\": \"n9\"}\n"))
        // The same from a file.
        try folder.write(Data("{\n\"execute\":\n\"blockdev-del\", \"arguments\": {\"node-name\":\n\"n9\"}\n}\nblockdev-add {\n\"driver\": \"null-co\",\n".utf8), to: "lines")
        let lines = try run("bash", ["-c", "exec \"$0\" qmp \"$1\" < lines", Strata.binary, daemon.monitorPath], in: folder.url)
        #expect(lines.ending == .exited(2) && String(decoding: lines.output, as: UTF8.self) == "{\n}\n", "\(lines)")
    }

    @Test("the line fits a terminal whose width changes, and a signal leaves the terminal as it was", arguments: [SIGTERM, SIGHUP, SIGINT])
    func terminalAndSignals(signal: Int32) throws {
        let folder = try TemporaryFolder()
        let daemon = try Daemon(nbd: false, in: folder)
        let long = String(repeating: "x", count: 60) + "end"
        let session = try shell(
            daemon.monitorPath,
            [
                ("qmp> ", .string(long)), (long, ["columns": 30]), ("qmp> " + String(repeating: "x", count: 21) + "end\u{1b}[K", ["columns": 100]), (long, ["signal": .integer(Int(signal))]),
            ], in: folder)
        #expect(session.ending == .exited(128 + signal), "\(session)")
    }

    @Test("scripts learn how it went: 0, 1 for a refusal, 2 for a call or a connection that is wrong")
    func statuses() throws {
        let folder = try TemporaryFolder()
        let daemon = try Daemon(nbd: false, in: folder)
        func status(_ words: String...) throws -> Finished.Ending { try run(Strata.binary, ["qmp"] + words, in: folder.url).ending }
        #expect(try status(daemon.monitorPath, "-c", "query-version", "-c", "query-commands") == .exited(0))
        #expect(try status(daemon.monitorPath, "-c", "blockdev-del node-name=none") == .exited(1))
        #expect(try status(daemon.monitorPath, "-c", "blockdev-add 'open") == .exited(2))
        #expect(try status("--nonsense") == .exited(2))
        #expect(try status(folder.path("nobody.sock"), "-c", "query-version") == .exited(2))
        #expect(try status("localhost:1", "-c", "query-version") == .exited(2))
    }
}
