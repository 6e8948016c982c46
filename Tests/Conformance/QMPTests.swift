import Foundation
import StrataTesting
import Testing

@Suite("QMP")
struct QMPTests {
    @Test("the greeting, ids and the lists are as the protocol says")
    func protocolBasics() throws {
        let daemon = try Daemon(nbd: false, in: try TemporaryFolder())
        let monitor = daemon.monitor
        let version = try #require(monitor.greeting["QMP"]?["version"]?["qemu"])
        for part in ["major", "minor", "micro"] { #expect(version[part]?.integer != nil) }
        #expect(monitor.greeting["QMP"]?["capabilities"]?.array != nil)
        #expect(try monitor.execute("query-version")["qemu"] == version)
        for identifier in [#""word""#, "7", #"{"deep": [1, null]}"#, "null"] {
            try monitor.sendLine(#"{"execute": "query-version", "id": \#(identifier)}"#)
            #expect(try monitor.readAnswer()["id"] == JSON(parsing: Data(identifier.utf8)))
        }
        let commands = Set(try #require(try monitor.execute("query-commands").array).compactMap { $0["name"]?.string })
        for name in [
            "qmp_capabilities", "query-version", "query-commands", "blockdev-add", "blockdev-del", "query-named-block-nodes", "nbd-server-start",
            "nbd-server-stop", "block-export-add", "block-export-del", "query-block-exports", "quit",
        ] {
            #expect(commands.contains(name), "query-commands lacks \(name)")
        }
        try daemon.quit()
    }

    @Test("before qmp_capabilities every other command is refused, and after it this one is")
    func negotiation() throws {
        let daemon = try Daemon(nbd: false, negotiate: false, in: try TemporaryFolder())
        let refusal = #expect(throws: QMPLineClient.Refusal.self) { try daemon.monitor.execute("query-version") }
        #expect(refusal?.errorClass == "CommandNotFound")
        try daemon.monitor.execute("qmp_capabilities")
        _ = try daemon.monitor.execute("query-version")
        #expect(throws: QMPLineClient.Refusal.self) { try daemon.monitor.execute("qmp_capabilities") }
        try daemon.quit()
    }

    struct Mistake: CustomTestStringConvertible, Sendable {
        let line: String
        let errorClass: String
        let names: String
        var testDescription: String { line }

        init(_ line: String, _ errorClass: String, naming names: String) {
            (self.line, self.errorClass, self.names) = (line, errorClass, names)
        }
    }

    @Test("a bad line gets one error that names what is wrong, and the monitor lives on", arguments: [
        Mistake(#"{"execute": "frobnicate"}"#, "CommandNotFound", naming: "frobnicate"),
        Mistake(#"{"exec": "query-version"}"#, "GenericError", naming: "exec"),
        Mistake(#"{"execute": 7}"#, "GenericError", naming: "execute"),
        Mistake(#"{"execute": "query-version", "arguments": {"frobnicate": 1}}"#, "GenericError", naming: "frobnicate"),
        Mistake(#"{"execute": "query-version", "arguments": []}"#, "GenericError", naming: "arguments"),
        Mistake(#"{"execute": "query-version", "frobnicate": 1}"#, "GenericError", naming: "frobnicate"),
        Mistake(#"[1, 2]"#, "GenericError", naming: "object"),
        Mistake(#"{"execute": "#, "GenericError", naming: "JSON"),
        Mistake(#"{"execute": "blockdev-add", "arguments": {"driver": "nosuchdriver"}}"#, "GenericError", naming: "nosuchdriver"),
        Mistake(#"{"execute": "blockdev-add", "arguments": {"driver": "file"}}"#, "GenericError", naming: "filename"),
        Mistake(#"{"execute": "blockdev-add", "arguments": {"driver": "file", "filename": 7}}"#, "GenericError", naming: "filename"),
        Mistake(#"{"execute": "blockdev-add", "arguments": {"driver": "file", "node-name": "n", "filename": "missing"}}"#, "GenericError", naming: "missing"),
        Mistake(#"{"execute": "blockdev-add", "arguments": {"driver": "null-co", "node-name": "a b"}}"#, "GenericError", naming: "node"),
        Mistake(#"{"execute": "blockdev-add", "arguments": {"driver": "null-co"}}"#, "GenericError", naming: "node-name"),
        Mistake(#"{"execute": "blockdev-del", "arguments": {"node-name": "nosuchnode"}}"#, "GenericError", naming: "nosuchnode"),
        Mistake(
            #"{"execute": "block-export-add", "arguments": {"type": "nbd", "id": "e", "node-name": "nosuchnode"}}"#, "GenericError", naming: "nosuchnode"),
        Mistake(#"{"execute": "block-export-del", "arguments": {"id": "nosuchexport"}}"#, "GenericError", naming: "nosuchexport"),
        Mistake(#"{"execute": "nbd-server-stop"}"#, "GenericError", naming: "NBD"),
    ])
    func badLine(mistake: Mistake) throws {
        let daemon = try Daemon(nbd: false, in: try TemporaryFolder())
        // Half a JSON text is only seen to be wrong at the next line: the brace below ends it.
        try daemon.monitor.sendLine(mistake.line.hasSuffix(": ") ? mistake.line + "}" : mistake.line)
        let answer = try daemon.monitor.readAnswer()
        #expect(answer["error"]?["class"]?.string == mistake.errorClass, "\(answer)")
        #expect(answer["error"]?["desc"]?.string?.contains(mistake.names) == true, "the error must name '\(mistake.names)': \(answer)")
        #expect(try daemon.monitor.execute("query-version").object != nil)
        try daemon.quit()
    }

    @Test("bytes that are no text, and nesting without end, get an error and not a crash")
    func hostileBytes() throws {
        for hostile in [
            [UInt8](repeating: UInt8(ascii: "["), count: 100_000) + [0x0a], [0xff, 0xfe, 0x00, 0x0a], Array("{\"execute\": \"\\ud800\"}\n".utf8),
            Array("{\"execute\": \"query-version\", \"id\": 1e999}\n".utf8), Array("{\"a\": 99999999999999999999999999}\n".utf8),
        ] {
            let folder = try TemporaryFolder()
            let daemon = try Daemon(nbd: false, in: folder)
            try daemon.monitor.sendBytes(hostile)
            let answer = try? daemon.monitor.readAnswer()
            #expect(daemon.process.isRunning, "the daemon died of \(hostile.prefix(40))")
            if let answer { #expect(answer["error"] != nil || answer["return"] != nil) }
        }
    }

    @Test("the Python QMP client of the QEMU project drives the main job, ours and qemu-storage-daemon alike, and hears the same events")
    func pythonPeer() throws {
        let script = Strata.root.appending(path: "Tests/Conformance/qmp-peer.py").path
        var events: [String] = []
        for program in [[Strata.binary, "daemon"], ["qemu-storage-daemon"]] {
            let folder = try TemporaryFolder()
            try Strata.mustImg("create", "-f", "qcow2", "disk.qcow2", "16M", in: folder)
            let daemon = try ChildProcess(
                program[0], program.dropFirst() + ["--chardev", "socket,id=qmp,path=qmp.sock,server=on,wait=off", "--monitor", "chardev=qmp", "--pidfile", "ready"],
                in: folder.url)
            defer { daemon.send(SIGKILL) }
            #expect(waitUntil { folder.contains("ready") || !daemon.isRunning })
            let peer = try run(Strata.python, [script, folder.path("qmp.sock"), folder.path("nbd.sock"), "disk.qcow2"], in: folder.url)
            #expect(peer.succeeded, "\(program): \(peer)")
            events.append(String(decoding: peer.output, as: UTF8.self))
            let finished = try daemon.wait(atMost: .seconds(20))
            #expect(finished.succeeded, "\(program): \(finished)")
            try QEMU.mustFindClean("disk.qcow2", in: folder)
        }
        #expect(events[0] == events[1] && events[0].contains("BLOCK_WRITE_THRESHOLD"))
    }
}
