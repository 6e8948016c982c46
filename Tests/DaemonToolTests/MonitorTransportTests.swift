import Foundation
import IOCore
import QAPIRuntime
import StrataTesting
import Testing

/// Monitors over every kind of character device.
@Suite("monitors over character devices")
struct MonitorTransportTests {
    private static let negotiation = #"{"execute": "qmp_capabilities"}"#
    private static let question = #"{"execute": "query-version", "id": 7}"#

    /// Waits until `condition` holds.
    private static func wait(for what: String, _ condition: () throws -> Bool) throws {
        guard try waitUntil(condition) else { throw Complaint(description: "\(what) did not happen") }
    }

    /// Reads from a descriptor until `text` has come.
    private static func read(_ descriptor: Int32, until text: String) throws -> String {
        var got: [UInt8] = []
        while !String(decoding: got, as: UTF8.self).contains(text) {
            var poller = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&poller, 1, 20000) > 0 else { throw Complaint(description: "'\(text)' did not come, but \(String(decoding: got, as: UTF8.self))") }
            var chunk = [UInt8](repeating: 0, count: 4096)
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            guard count > 0 else { throw Complaint(description: "the end came before '\(text)'") }
            got += chunk[..<count]
        }
        return String(decoding: got, as: UTF8.self)
    }

    private static func write(_ text: String, to descriptor: Int32) { _ = Array(text.utf8).withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) } }

    private static func info(_ daemon: RunningDaemon, _ label: String) throws -> JSONValue {
        let devices = try daemon.monitor.execute("query-chardev")["return"]?.array ?? []
        return try #require(devices.first { $0["label"] == .string(label) })
    }

    private static func quit(_ daemon: RunningDaemon) throws {
        #expect(try daemon.monitor.execute("quit") == ["return": [:]])
        #expect(try daemon.waitForEnd() == .exited(0))
    }

    @Test("a pseudo terminal serves one program after the other, and its link goes in the end")
    func terminal() throws {
        let scratch = try Scratch()
        let daemon = try RunningDaemon(["--chardev", "pty,id=t,path=tty", "--monitor", "t"], scratch: scratch)
        let path = try #require(try Self.info(daemon, "t")["filename"]?.string)
        #expect(path.hasPrefix("pty:/dev/pts/"))
        for round in 0..<3 {
            let descriptor = open(scratch.file("tty"), O_RDWR | O_NOCTTY)
            try #require(descriptor >= 0)
            // A program that comes before the daemon has seen the last one go takes its conversation over: only the first surely gets a greeting.
            if round == 0 { _ = try Self.read(descriptor, until: "\"QMP\"") }
            Self.write(Self.negotiation + Self.question, to: descriptor)
            _ = try Self.read(descriptor, until: "\"id\": 7")
            // The last one is there to the end: the daemon ends all the same.
            if round < 2 { close(descriptor) }
        }
        try Self.quit(daemon)
        #expect(!scratch.exists("tty") && (try? FileManager.default.destinationOfSymbolicLink(atPath: scratch.file("tty"))) == nil)
    }

    @Test("named pipes", arguments: [true, false])
    func pipes(pair: Bool) throws {
        let scratch = try Scratch()
        for name in pair ? ["p.in", "p.out"] : ["other"] { mkfifo(scratch.file(name), 0o600) }
        if !pair { return try Self.loopingPipe(scratch) }
        let daemon = try RunningDaemon(["--chardev", "pipe,id=p,path=p", "--monitor", "p"], scratch: scratch)
        let output = open(scratch.file("p.out"), O_RDONLY)
        let input = open(scratch.file("p.in"), O_WRONLY)
        defer { for descriptor in [input, output] { close(descriptor) } }
        _ = try Self.read(output, until: "\"QMP\"")
        Self.write(Self.negotiation + Self.question, to: input)
        _ = try Self.read(output, until: "\"id\": 7")
        try Self.quit(daemon)
    }

    /// One pipe for both directions says to itself what it has said: errors without end must not keep others from being served.
    private static func loopingPipe(_ scratch: Scratch) throws {
        let daemon = try RunningDaemon(["--chardev", "pipe,id=p,path=other", "--monitor", "p"], scratch: scratch)
        #expect(try info(daemon, "p")["filename"] == "pipe")
        for _ in 0..<100 { _ = try daemon.monitor.execute("query-version") }
        try quit(daemon)
    }

    @Test("commands from a file, answers into another one, and a log of what was said")
    func files() throws {
        let scratch = try Scratch()
        try scratch.write("in", Array((Self.negotiation + Self.question).utf8))
        try scratch.write("out", Array("before\n".utf8))
        let daemon = try RunningDaemon(
            ["--chardev", "file,id=f,path=out,input-path=in,append=on,logfile=log", "--monitor", "f"], scratch: scratch)
        func text(_ name: String) throws -> String { String(decoding: try scratch.read(name), as: UTF8.self) }
        try Self.wait(for: "the answer in the file") { try text("out").contains("\"id\": 7") }
        try Self.quit(daemon)
        #expect(try text("out").hasPrefix("before\n{\"QMP\""))
        #expect(try "before\n" + text("log") == text("out"))
    }

    @Test("what a monitor says to a ring buffer can be read from another one, as any JSON description asks for it")
    func ringBuffer() throws {
        let scratch = try Scratch()
        for option in [#"{"id": "r", "backend": {"type": "ringbuf", "data": {"size": 4096}}}"#, "id=r,backend.type=ringbuf,backend.data.size=4096", "ringbuf,id=r,size=4k"] {
            let daemon = try RunningDaemon(["--chardev", option, "--monitor", "r", "--chardev", "null,id=n", "--monitor", "n"], scratch: scratch)
            #expect(try daemon.monitor.execute("ringbuf-read", ["device": "r", "size": 4096])["return"]?.string?.hasPrefix("{\"QMP\"") == true)
            #expect(try daemon.monitor.execute("chardev-remove", ["id": "n"])["error"]?["desc"] == "Chardev 'n' is busy")
            let change = try daemon.monitor.execute("chardev-change", ["id": "n", "backend": ["type": "null", "data": [:]]])
            #expect(change["error"]?["desc"] == "Chardev user does not support chardev hotswap")
            #expect(try Self.info(daemon, "n")["frontend-open"] == true)
            try Self.quit(daemon)
        }
    }

    @Test("an abstract socket, and TCP with the port that the kernel chose")
    func sockets() throws {
        let scratch = try Scratch()
        let name = "strata-test-\(UUID().uuidString.prefix(8))"
        let daemon = try RunningDaemon(
            [
                "--chardev", "socket,id=a,path=\(name),abstract=on,server=on,wait=off", "--monitor", "a",
                "--chardev", "socket,id=p,path=\(name),abstract=on,tight=off,server=on,wait=off", "--monitor", "p",
                "--chardev", "socket,id=i,host=127.0.0.1,port=0,server=on,wait=off", "--monitor", "i",
            ], scratch: scratch)
        let address = try daemon.monitor.execute("qom-get", ["path": "/chardevs/i", "property": "addr"])["return"]
        let port = try #require(address?["port"]?.string)
        for address in [HostAddress.abstract(name: name, isPadded: false), .abstract(name: name, isPadded: true), .tcp(host: "127.0.0.1", port: port)] {
            let client = try MonitorClient(connectingTo: address, of: daemon.process)
            #expect(try client.execute("query-block-exports") == ["return": []])
        }
        let second = try MonitorClient(connectingTo: .tcp(host: "127.0.0.1", port: port), of: daemon.process)
        let filename = try #require(try Self.info(daemon, "i")["filename"]?.string)
        #expect(filename.hasPrefix("tcp:127.0.0.1:\(port),server=on <-> 127.0.0.1:") || filename == "disconnected:tcp:127.0.0.1:\(port),server=on")
        #expect(try second.execute("quit") == ["return": [:]])
        #expect(try daemon.waitForEnd() == .exited(0))
    }

    @Test("a client of a server that is not there yet, and goes away again, comes back")
    func reconnecting() throws {
        let scratch = try Scratch()
        let daemon = try RunningDaemon(["--chardev", "socket,id=c,path=server.sock,reconnect-ms=20", "--monitor", "c"], scratch: scratch)
        #expect(try Self.info(daemon, "c")["filename"] == "disconnected:unix:server.sock")
        for _ in 0..<3 {
            let server = try ListeningSocket(.unix(path: scratch.file("server.sock")))
            var accepted: ConnectedSocket?
            try Self.wait(for: "the connection") {
                accepted = try server.accept()
                return accepted != nil
            }
            let socket = try #require(accepted)
            let client = try MonitorClient(socket)
            #expect(try client.execute("query-block-exports") == ["return": []])
            #expect(try Self.info(daemon, "c")["filename"] == "unix:server.sock")
            server.removeSocketFile()
            socket.shutDown()
            try Self.wait(for: "the end of the connection") { try Self.info(daemon, "c")["filename"] == "disconnected:unix:server.sock" }
        }
        try Self.quit(daemon)
    }

    @Test("descriptors that the daemon was started with: a connected one, and one that listens", arguments: [true, false])
    func descriptors(listening: Bool) throws {
        let scratch = try Scratch()
        let program = """
            import json, os, socket, subprocess, sys
            if sys.argv[2] == "listen":
                server = socket.socket(socket.AF_UNIX)
                server.bind("fd.sock")
                server.listen()
                given = server
            else:
                given, mine = socket.socketpair()
            mode = ",server=on,wait=off" if sys.argv[2] == "listen" else ""
            daemon = subprocess.Popen([sys.argv[1], "daemon", "--chardev", f"socket,id=c,fd={given.fileno()}{mode}", "--monitor", "c"], pass_fds=[given.fileno()])
            if sys.argv[2] == "listen":
                mine = socket.socket(socket.AF_UNIX)
                mine.connect("fd.sock")
            else:
                given.close()
            stream = mine.makefile("rw")
            assert "QMP" in json.loads(stream.readline())
            for command in "qmp_capabilities", "query-chardev", "quit":
                stream.write(json.dumps({"execute": command}))
                stream.flush()
                print(stream.readline())
            sys.exit(daemon.wait())
            """
        let outcome = try run("/usr/bin/python3", ["-c", program, strata, listening ? "listen" : "connect"], in: scratch.path)
        #expect(outcome.status == 0 && outcome.output.contains("\"label\": \"c\""), "\(outcome.output) \(outcome.complaint)")
    }

    @Test("a mistake in a character device is named", arguments: [
        ("null,id=c,foo=1", "Invalid parameter 'foo'"), ("null,id=1c", "Parameter 'id' expects an identifier"), ("file,id=c", "chardev: file: no filename given"),
        ("pipe,id=c", "chardev: pipe: no device path given"), ("ringbuf,id=c,size=5", "size of ringbuf chardev must be power of two"),
        ("socket,id=c,fd=77,server=on", "File descriptor '77'"), ("socket,id=c,fd=0", "File descriptor '0'"), ("socket,id=c,path=x,fd=0", "exclude each other"),
        ("socket,id=c,path=x,tls-creds=t,server=on", "tls-creds"), ("socket,id=c,path=x,reconnect=1,reconnect-ms=1", "mutually exclusive"),
        ("pty,id=c,path=/nonexistent/x", "Failed to create PTY symlink '/nonexistent/x'"), ("{\"id\": 3}", "Invalid parameter type for 'id'"),
        ("id=c,backend.type=null,backend.x=1", "backend.x"), ("null,id=c,mux=on", "'mux' is not supported"),
    ])
    func mistakes(option: String, message: String) throws {
        let scratch = try Scratch()
        let outcome = try run(strata, ["daemon", "--chardev", option], in: scratch.path)
        #expect(outcome.status == 1 && outcome.complaint.contains(message), "\(outcome.complaint)")
    }

    @Test("a daemon that ends does not remove a socket that another one has put in the place of its own")
    func takenSocket() throws {
        let scratch = try Scratch()
        let daemon = try RunningDaemon(["--nbd-server", "addr.type=unix,addr.path=nbd.sock"], scratch: scratch)
        var successors: [ListeningSocket] = []
        for name in ["qmp.sock", "nbd.sock"] {
            try FileManager.default.removeItem(atPath: scratch.file(name))
            successors.append(try ListeningSocket(.unix(path: scratch.file(name))))
        }
        try Self.quit(daemon)
        #expect(scratch.exists("qmp.sock") && scratch.exists("nbd.sock"))
        for successor in successors { successor.removeSocketFile() }
        #expect(!scratch.exists("qmp.sock") && !scratch.exists("nbd.sock"))
    }

    @Test("a second signal, a while after the first, ends a daemon whose orderly end hangs")
    func secondSignal() throws {
        let scratch = try Scratch()
        // A server that lets one in and never says a word.
        let server = try ListeningSocket(.unix(path: scratch.file("mute.sock")))
        let process = try startDaemon(["--blockdev", "nbd,node-name=n,server.type=unix,server.path=mute.sock"], scratch: scratch)
        defer { process.send(SIGKILL) }
        var client: ConnectedSocket?
        try Self.wait(for: "the connection") {
            client = try server.accept()
            return client != nil
        }
        // Many at once are one decision: it is the time in between that counts.
        let start = ContinuousClock.now
        _ = waitUntil {
            process.send(SIGTERM)
            return !process.isRunning
        }
        #expect(try process.wait().ending == .exited(1))
        #expect(ContinuousClock.now - start >= .seconds(1))
        withExtendedLifetime(client) {}
    }

    @Test("100,000 random and mutated messages: the daemon lives, its memory stays bounded, and the next client is served")
    func hostileMessages() throws {
        let scratch = try Scratch()
        let daemon = try RunningDaemon([], scratch: scratch)
        func residentBytes() throws -> Int {
            let status = try String(contentsOfFile: "/proc/\(daemon.process.identifier)/statm", encoding: .utf8)
            return try #require(Int(status.split(separator: " ")[1])) * 4096
        }
        let samples = [
            #"{"execute":"query-version","id":[1,{"a":"\u00e9"}]}"#, #"{"execute":"query-chardev"}"#, #"{"exec-oob":"query-version","id":-1.5e3}"#,
            #"{"execute":"blockdev-add","arguments":{"driver":"raw","node-name":"n","file":{"driver":"null-co"}}}"#,
            #"{"execute":"object-add","arguments":{"qom-type":"secret","id":"s","data":"x"}}"#, #"{"execute":"qom-list","arguments":{"path":"/objects"}}"#,
            #"{"execute":"chardev-add","arguments":{"id":"r","backend":{"type":"ringbuf","data":{"size":16}}}}"#,
            #"{"execute":"ringbuf-write","arguments":{"device":"r","data":"abc"}}"#,
        ].map { Array($0.utf8) }
        var state: UInt64 = 20260101
        func random(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % limit
        }
        let alphabet = Array(#"{}[]:,"'\0129.eE+-truefalsn "#.utf8) + [0x00, 0x0a, 0x7f, 0xc3, 0xa9, 0xff]
        var before = 0
        for round in 0..<100 {
            var bytes: [UInt8] = Array(Self.negotiation.utf8)
            for _ in 0..<1000 {
                var message = samples[random(samples.count)]
                if random(3) == 0 { message = (0..<random(40)).map { _ in alphabet[random(alphabet.count)] } }
                for _ in 0..<random(4) where !message.isEmpty { message[random(message.count)] = alphabet[random(alphabet.count)] }
                bytes += message
            }
            bytes += [0xff] + Array((Self.question + "\n").utf8)
            try MonitorClient.pour(bytes, into: scratch.file("qmp.sock"), until: "\"id\": 7}")
            if round == 9 { before = try residentBytes() }
        }
        #expect(try residentBytes() - before < 32 << 20)
        #expect(try daemon.monitor.execute("query-version")["return"] != nil)
        try Self.quit(daemon)
    }
}
