import Foundation
import StrataTesting
import Testing

@Suite("nbd serves as qemu-nbd does")
struct NBDToolTests {
    /// A folder with images, and our program under qemu-nbd's name.
    private final class Place {
        let folder: TemporaryFolder
        var tool: String { folder.path("qemu-nbd") }
        var socket: String { folder.path("socket") }
        var uri: String { "nbd+unix:///?socket=\(socket)" }

        init() throws {
            folder = try TemporaryFolder()
            try FileManager.default.createSymbolicLink(atPath: folder.path("qemu-nbd"), withDestinationPath: Strata.binary)
            try QEMU.img("create", "-q", "-f", "qcow2", "base.qcow2", "8M", in: folder)
            try QEMU.io("base.qcow2", ["write -q -P 3 0 3M"], in: folder)
            try QEMU.img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "a.qcow2", in: folder)
            try QEMU.io("a.qcow2", ["write -q -P 5 1M 100k"], in: folder)
            try folder.write([UInt8](repeating: 7, count: 1 << 20), to: "r.raw")
        }

        /// Starts a server in the background; it is ready when this returns.
        func serve(_ program: String? = nil, _ arguments: String...) throws -> pid_t {
            try mustRun(program ?? tool, ["--fork", "--pid-file=\(folder.path("pid"))", "-k", socket] + arguments, in: folder.url)
            let text = String(decoding: try folder.read("pid"), as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)
            return try #require(pid_t(text))
        }

        func expectEnd(of server: pid_t) { #expect(waitUntil { kill(server, 0) != 0 }, "the server has ended") }
    }

    @Test(
        "wrong command lines are refused in the same words",
        arguments: [
            ["nosuch"], ["-f", "foo", "a.qcow2"], ["-e", "x", "a.qcow2"], ["-e", "-1", "a.qcow2"], ["-k", "rel", "a.qcow2"], ["-o", "x", "a.qcow2"],
            ["-o", "1M", "a.qcow2"], ["--cache=foo", "a.qcow2"], ["--cache", "none", "-n", "a.qcow2"], ["--aio=foo", "a.qcow2"],
            ["--discard=foo", "a.qcow2"], ["--detect-zeroes=foo", "a.qcow2"], ["--detect-zeroes=unmap", "--discard=ignore", "a.qcow2"], ["-L", "a.qcow2"],
            ["-L", "-p", "1"], ["-L", "-k", "/nosuch"], ["-c", "/dev/nosuch", "a.qcow2"], ["-d", "/dev/nosuch"], ["--tls-creds=x", "a.qcow2"],
            ["--tls-authz=x", "a.qcow2"], ["--tls-hostname=h", "a.qcow2"], ["--image-opts", "-f", "raw", "a.qcow2"],
            ["--image-opts", "driver=raw,file.filename=nosuch"], ["-l", "foo", "a.qcow2"], ["-l", "snapshot.foo=1", "a.qcow2"],
            ["--handshake-limit=x", "a.qcow2"], ["--handshake-limit=-1", "a.qcow2"], ["--object", "foo,id=1", "a.qcow2"],
            ["-x", String(repeating: "a", count: 5000), "a.qcow2"], ["-D", String(repeating: "a", count: 5000), "a.qcow2"],
        ])
    func refusals(_ arguments: [String]) throws {
        let place = try Place()
        let theirs = try run("qemu-nbd", arguments, in: place.folder.url)
        let ours = try run(place.tool, arguments, in: place.folder.url)
        #expect("\(ours.ending)" == "\(theirs.ending)", "\(ours)")
        // QEMU says what it made of a wrong snapshot in a line with its name in front, we without.
        let (ourText, theirText) = (ours.errorText.replacing("qemu-nbd: ", with: ""), theirs.errorText.replacing("qemu-nbd: ", with: ""))
        #expect(ourText == theirText, "\(arguments)")
    }

    @Test("everything else is refused as clearly", arguments: [[], ["a", "b"], ["-z"], ["--bogus"], ["-d"], ["-k", "/nosuch/s", "a.qcow2"], ["--selinux-label=x", "a.qcow2"], ["--pid-file=/nosuch/p", "-k", "PLACE", "a.qcow2"]])
    func otherRefusals(_ arguments: [String]) throws {
        let place = try Place()
        let ours = try run(place.tool, arguments.map { $0 == "PLACE" ? place.socket : $0 }, in: place.folder.url)
        #expect("\(ours.ending)" == "exited(1)" && !ours.errorText.isEmpty, "\(ours)")
        #expect(!place.folder.contains("socket"), "nothing is left behind")
    }

    @Test("each lists what the other serves, in the same words", arguments: [["-f", "qcow2", "a.qcow2"], ["-f", "raw", "-r", "r.raw"], ["-e", "1", "-f", "qcow2", "a.qcow2"]])
    func listing(_ image: [String]) throws {
        for program in [nil, "qemu-nbd"] {
            let place = try Place()
            try mustRun(
                program ?? place.tool,
                ["--fork", "--pid-file=\(place.folder.path("pid"))", "-k", place.socket, "-t", "-x", "disk", "-D", "for people", "-A", "-e", "4"] + image,
                in: place.folder.url)
            let server = try #require(pid_t(String(decoding: try place.folder.read("pid"), as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)))
            let theirs = try mustRun("qemu-nbd", ["-L", "-k", place.socket])
            let ours = try mustRun(place.tool, ["-L", "-k", place.socket])
            #expect(ours.text == theirs.text)
            let exports = try JSONSerialization.jsonObject(with: try mustRun(place.tool, ["-L", "--json", "-k", place.socket]).output) as? [[String: Any]]
            #expect(exports?.first?["name"] as? String == "disk" && exports?.first?["description"] as? String == "for people")
            #expect(exports?.first?["meta-contexts"] as? [String] == ["base:allocation", "qemu:allocation-depth"])
            kill(server, SIGTERM)
            place.expectEnd(of: server)
            #expect(!place.folder.contains("socket") && (program != nil || !place.folder.contains("pid")))
        }
    }

    @Test("the same is said of another server with several exports")
    func listingOthers() throws {
        let place = try Place()
        let script = "qemu-nbd -L -k \"$unixsocket\" > theirs; '\(place.tool)' -L -k \"$unixsocket\" > ours"
        try mustRun("nbdkit", ["-U", "-", "file", "dir=\(place.folder.url.path)", "--run", script], in: place.folder.url)
        let (theirs, ours) = (String(decoding: try place.folder.read("theirs"), as: UTF8.self), String(decoding: try place.folder.read("ours"), as: UTF8.self))
        // The folder gains the outputs meanwhile: whole exports are compared, but for the files that grow.
        func exports(_ text: String) -> Set<String> { Set(text.components(separatedBy: " export: ").filter { $0.hasPrefix("'base") || $0.hasPrefix("'a.") || $0.hasPrefix("'r.") }) }
        #expect(exports(ours) == exports(theirs) && exports(ours).count == 3)
    }

    @Test("without -t the server ends with its last client, with -t it stays")
    func ending() throws {
        let place = try Place()
        let first = try place.serve(nil, "-f", "qcow2", "a.qcow2")
        let info = try mustRun("nbdinfo", [place.uri])
        #expect(info.text.contains("can_multi_conn: false"), "one client at a time")
        place.expectEnd(of: first)
        let second = try place.serve(nil, "-t", "-e", "0", "-f", "qcow2", "a.qcow2")
        for _ in 0..<3 { #expect(try mustRun("nbdinfo", [place.uri]).text.contains("can_multi_conn: true")) }
        #expect(kill(second, 0) == 0)
        kill(second, SIGTERM)
        place.expectEnd(of: second)
    }

    @Test("what clients write is in the image afterwards; what they write to a snapshot is not")
    func writing() throws {
        let place = try Place()
        var server = try place.serve(nil, "-f", "qcow2", "a.qcow2")
        try mustRun("qemu-io", ["-f", "raw", "-c", "write -P 9 2M 64k", place.uri])
        place.expectEnd(of: server)
        try QEMU.mustFindClean("a.qcow2", in: place.folder)
        try QEMU.io("a.qcow2", ["read -P 9 2M 64k", "read -P 5 1M 100k", "read -P 3 0 1M"], in: place.folder)
        server = try place.serve(nil, "-s", "-f", "qcow2", "a.qcow2")
        let done = try mustRun("qemu-io", ["-f", "raw", "-c", "write -P 1 0 8M", "-c", "read -P 1 0 8M", place.uri])
        #expect(!done.text.contains("failed"))
        place.expectEnd(of: server)
        try QEMU.io("a.qcow2", ["read -P 9 2M 64k"], in: place.folder)
    }

    @Test("a part, or an internal snapshot, is served for reading")
    func parts() throws {
        let place = try Place()
        let server = try place.serve(nil, "-o", "4096", "-r", "-f", "raw", "r.raw")
        #expect(try mustRun("nbdinfo", ["--size", place.uri]).text == "\((1 << 20) - 4096)\n")
        place.expectEnd(of: server)
        try QEMU.img("snapshot", "-c", "before", "a.qcow2", in: place.folder)
        try QEMU.io("a.qcow2", ["write -P 1 1M 100k"], in: place.folder)
        for name in ["before", "1", "snapshot.name=before"] {
            let server = try place.serve(nil, "-l", name, "-f", "qcow2", "a.qcow2")
            let read = try mustRun("qemu-io", ["-r", "-f", "raw", "-c", "read -P 5 1M 100k", place.uri])
            #expect(!read.text.contains("failed"), "\(read)")
            place.expectEnd(of: server)
        }
    }

    @Test("a socket that the process was started with is listened on")
    func socketActivation() throws {
        let place = try Place()
        // As systemd does it: the socket as descriptor 3, and the process's own id.
        let starter = """
            import os, socket, sys
            s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
            os.dup2(s.fileno(), 3); os.set_inheritable(3, True)
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
            os.execv(sys.argv[2], sys.argv[2:])
            """
        let server = try ChildProcess("python3", ["-c", starter, place.socket, place.tool, "-f", "raw", "r.raw"], in: place.folder.url)
        #expect(waitUntil { place.folder.contains("socket") })
        let read = try mustRun("qemu-io", ["-r", "-f", "raw", "-c", "read -P 7 0 1M", place.uri])
        #expect(!read.text.contains("failed"))
        #expect(try server.wait().succeeded)
        let refused = try run("python3", ["-c", starter, place.folder.path("second"), place.tool, "-p", "1", "-f", "raw", "r.raw"], in: place.folder.url)
        expectClearError(refused, naming: ["--port"])
    }

    @Test("nbdcopy takes a whole image through several connections")
    func copying() throws {
        let place = try Place()
        let server = try place.serve(nil, "-e", "4", "-t", "-f", "qcow2", "a.qcow2")
        try mustRun("nbdcopy", ["-C", "4", place.uri, "copy.raw"], in: place.folder.url)
        kill(server, SIGTERM)
        place.expectEnd(of: server)
        #expect(try place.folder.read("copy.raw") == QEMU.contents(of: "a.qcow2", in: place.folder))
    }

    @Test("over TLS, in both directions")
    func encrypted() throws {
        let place = try Place()
        try place.folder.write(Array("qemu:00112233445566778899aabbccddeeff\n".utf8), to: "keys.psk")
        func credentials(_ endpoint: String) -> [String] {
            ["--object", "tls-creds-psk,id=tls,dir=\(place.folder.url.path),endpoint=\(endpoint)", "--tls-creds=tls"]
        }
        for (program, client) in [(nil, "qemu-nbd"), ("qemu-nbd", place.tool)] {
            try mustRun(
                program ?? place.tool, ["--fork", "--pid-file=\(place.folder.path("pid"))", "-k", place.socket, "-t", "-f", "raw", "r.raw"] + credentials("server"),
                in: place.folder.url)
            let server = try #require(pid_t(String(decoding: try place.folder.read("pid"), as: UTF8.self).trimmingCharacters(in: .whitespacesAndNewlines)))
            #expect(try mustRun(client, ["-L", "-k", place.socket] + credentials("client")).text.contains("size:  1048576"))
            let refused = try run(client, ["-L", "-k", place.socket])
            #expect(!refused.succeeded && refused.errorText.contains("TLS"), "\(refused)")
            kill(server, SIGTERM)
            place.expectEnd(of: server)
        }
    }
}
