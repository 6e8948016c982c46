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
        func serve(_ program: String? = nil, _ arguments: String...) throws -> BackgroundServer { try serve(program, arguments) }

        func serve(_ program: String?, _ arguments: [String]) throws -> BackgroundServer {
            let pidFile = folder.path("pid")
            return try BackgroundServer(program ?? tool, ["--fork", "--pid-file=\(pidFile)", "-k", socket] + arguments, pidFile: pidFile, in: folder.url)
        }
    }

    @Test(
        "wrong command lines are refused in the same words",
        arguments: [
            ["nosuch"], ["-f", "foo", "a.qcow2"], ["-e", "x", "a.qcow2"], ["-e", "-1", "a.qcow2"], ["-k", "rel", "a.qcow2"], ["-o", "x", "a.qcow2"],
            ["-o", "1M", "a.qcow2"], ["--cache=foo", "a.qcow2"], ["--cache", "none", "-n", "a.qcow2"], ["--aio=foo", "a.qcow2"],
            ["--discard=foo", "a.qcow2"], ["--detect-zeroes=foo", "a.qcow2"], ["--detect-zeroes=unmap", "--discard=ignore", "a.qcow2"], ["--detect-zeroes=unmap", "a.qcow2"], ["-L", "a.qcow2"],
            ["-L", "-p", "1"], ["-L", "-k", "/nosuch"], ["-c", "/dev/nosuch", "a.qcow2"], ["-v", "-c", "/dev/nosuch", "a.qcow2"], ["-d", "/dev/nosuch"], ["--tls-creds=x", "a.qcow2"],
            ["--tls-authz=x", "a.qcow2"], ["--tls-hostname=h", "a.qcow2"], ["--image-opts", "-f", "raw", "a.qcow2"],
            ["--image-opts", "driver=raw,file.filename=nosuch"], ["-l", "foo", "a.qcow2"], ["-l", "snapshot.foo=1", "a.qcow2"],
            ["--handshake-limit=x", "a.qcow2"], ["--handshake-limit=-1", "a.qcow2"], ["--object", "foo,id=1", "a.qcow2"],
            ["-z"], ["--bogus"], ["--cache"], [], ["a", "b"], ["-e", "0x", "a.qcow2"], ["-e", "2 ", "a.qcow2"], ["-e", "2147483648", "a.qcow2"], ["-o", "1k", "a.qcow2"],
            ["--handshake-limit=4294967296", "a.qcow2"], ["--handshake-limit=1x", "a.qcow2"], ["--tls-creds=x", "nosuch"],
            ["--object", "secret,id=s", "a.qcow2"], ["--object", "", "a.qcow2"], ["-L", "--fork"], ["-L", "--tls-authz=x", "--tls-creds=y"],
            ["-x", String(repeating: "a", count: 5000), "a.qcow2"], ["-D", String(repeating: "a", count: 5000), "a.qcow2"],
        ])
    func refusals(_ arguments: [String]) throws {
        let place = try Place()
        // qemu-nbd listens before it looks at the image, and others may be listening on its port.
        func placed(_ name: String) -> [String] { ["-L", "-d", "-k"].contains { arguments.contains($0) } ? arguments : ["-k", place.folder.path(name)] + arguments }
        let theirs = try run("qemu-nbd", placed("theirs"), in: place.folder.url)
        let ours = try run(place.tool, placed("ours"), in: place.folder.url)
        #expect("\(ours.ending)" == "\(theirs.ending)", "\(ours)")
        // QEMU says what it made of a wrong snapshot in a line with its name in front, we without.
        // The program's own name stands as it was typed in some messages.
        func said(_ text: String) -> String { text.replacing(place.tool, with: "qemu-nbd").replacing("/usr/bin/", with: "").replacing("qemu-nbd: ", with: "") }
        #expect(said(ours.errorText) == said(theirs.errorText), "\(arguments)")
    }

    @Test("numbers are read as the C library reads them", arguments: [["-e", " 0x2"], ["-e", "+010"], ["-o", "0x200"], ["-o", "+512"], ["--handshake-limit", "0x10"], ["--handshake-limit", " 7"]])
    func notations(_ options: [String]) throws {
        let place = try Place()
        var listings: [String] = []
        for program in ["qemu-nbd", place.tool] {
            let server = try place.serve(program, ["-t", "-f", "qcow2", "a.qcow2"] + options)
            listings.append(try mustRun("qemu-nbd", ["-L", "-k", place.socket]).text)
            #expect(server.stop())
        }
        func sizes(_ listing: String) -> [Substring] { listing.split(separator: "\n").filter { $0.hasPrefix("  size:") } }
        #expect(sizes(listings[0]).count == 1 && sizes(listings[0]) == sizes(listings[1]), "\(listings)")
    }

    @Test("everything else is refused as clearly", arguments: [["-d"], ["-d", "r.raw"], ["-d", "/dev/null"], ["-k", "/nosuch/s", "a.qcow2"], ["--selinux-label=x", "a.qcow2"], ["--pid-file=/nosuch/p", "-k", "PLACE", "a.qcow2"]])
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
            let server = try place.serve(program, ["-t", "-x", "disk", "-D", "for people", "-A", "-e", "4"] + image)
            let theirs = try mustRun("qemu-nbd", ["-L", "-k", place.socket])
            let ours = try mustRun(place.tool, ["-L", "-k", place.socket])
            #expect(ours.text == theirs.text)
            let exports = try JSONSerialization.jsonObject(with: try mustRun(place.tool, ["-L", "--json", "-k", place.socket]).output) as? [[String: Any]]
            #expect(exports?.first?["name"] as? String == "disk" && exports?.first?["description"] as? String == "for people")
            #expect(exports?.first?["meta-contexts"] as? [String] == ["base:allocation", "qemu:allocation-depth"])
            #expect(server.stop())
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
        #expect(first.waitForEnd())
        let second = try place.serve(nil, "-t", "-e", "0", "-f", "qcow2", "a.qcow2")
        for _ in 0..<3 { #expect(try mustRun("nbdinfo", [place.uri]).text.contains("can_multi_conn: true")) }
        #expect(second.isRunning)
        #expect(second.stop())
    }

    @Test("what clients write is in the image afterwards; what they write to a snapshot is not")
    func writing() throws {
        let place = try Place()
        var server = try place.serve(nil, "-f", "qcow2", "a.qcow2")
        try mustRun("qemu-io", ["-f", "raw", "-c", "write -P 9 2M 64k", place.uri])
        #expect(server.waitForEnd())
        try QEMU.mustFindClean("a.qcow2", in: place.folder)
        try QEMU.io("a.qcow2", ["read -P 9 2M 64k", "read -P 5 1M 100k", "read -P 3 0 1M"], in: place.folder)
        server = try place.serve(nil, "-s", "-f", "qcow2", "a.qcow2")
        let done = try mustRun("qemu-io", ["-f", "raw", "-c", "write -P 1 0 8M", "-c", "read -P 1 0 8M", place.uri])
        #expect(!done.text.contains("failed"))
        #expect(server.waitForEnd())
        try QEMU.io("a.qcow2", ["read -P 9 2M 64k"], in: place.folder)
    }

    @Test("a part, or an internal snapshot, is served for reading")
    func parts() throws {
        let place = try Place()
        let server = try place.serve(nil, "-o", "4096", "-r", "-f", "raw", "r.raw")
        #expect(try mustRun("nbdinfo", ["--size", place.uri]).text == "\((1 << 20) - 4096)\n")
        #expect(server.waitForEnd())
        try QEMU.img("snapshot", "-c", "before", "a.qcow2", in: place.folder)
        try QEMU.io("a.qcow2", ["write -P 1 1M 100k"], in: place.folder)
        for name in ["before", "1", "snapshot.name=before"] {
            let server = try place.serve(nil, "-l", name, "-f", "qcow2", "a.qcow2")
            let read = try mustRun("qemu-io", ["-r", "-f", "raw", "-c", "read -P 5 1M 100k", place.uri])
            #expect(!read.text.contains("failed"), "\(read)")
            #expect(server.waitForEnd())
        }
    }

    @Test("a file that is no device of the kernel's client is not connected, and the image stays as it was", arguments: [true, false])
    func noDevice(verbose: Bool) throws {
        let place = try Place()
        let before = try place.folder.read("a.qcow2")
        try place.folder.write([], to: "device")
        let words = (verbose ? ["-v"] : []) + ["-f", "qcow2", "-c", place.folder.path("device"), place.folder.path("a.qcow2")]
        let theirs = try run("qemu-nbd", ["-k", place.folder.path("theirs")] + words, in: place.folder.url)
        let ours = try run(place.tool, words, in: place.folder.url)
        #expect(theirs.ending == .exited(1) && theirs.errorText.contains("Failed to set NBD socket"), "\(theirs)")
        #expect(ours.ending == .exited(1) && ours.errorText == "qemu-nbd: Failed to set NBD socket: Inappropriate ioctl for device\n", "\(ours)")
        #expect(try place.folder.read("a.qcow2") == before)
    }

    /// Further options to serve r.raw with, the numbers of bytes that clients then see, and whether they may write.
    private static let servings: [(options: [String], size: Int, isWritable: Bool)] = [
        (["-f", "raw"], 1 << 20, true), (["-r", "-f", "raw"], 1 << 20, false), (["-n", "-f", "raw"], 1 << 20, true), (["-o", "8192", "-f", "raw"], (1 << 20) - 8192, true),
        (["--cache=none", "--aio=native", "-f", "raw"], 1 << 20, true), (["--cache=writethrough", "--aio=threads", "-f", "raw"], 1 << 20, true),
        (["--cache=directsync", "-f", "raw"], 1 << 20, true), (["--cache=unsafe", "--aio=io_uring", "-f", "raw"], 1 << 20, true), (["--cache=writeback", "-f", "raw"], 1 << 20, true),
        (["--discard=ignore", "-f", "raw"], 1 << 20, true), (["--discard=unmap", "--detect-zeroes=unmap", "-f", "raw"], 1 << 20, true),
        (["--detect-zeroes=on", "-f", "raw"], 1 << 20, true), (["-x", "ünï, code", "-D", "words", "-e", "3", "-f", "raw"], 1 << 20, true),
        (["--handshake-limit=0", "-A", "-v", "-f", "raw"], 1 << 20, true), (["--image-opts", "driver=raw,file.driver=file,file.filename="], 1 << 20, true),
    ]

    @Test("with every option both offer the same and leave the same image", arguments: servings.map(\.options))
    func everyOption(_ options: [String]) throws {
        let serving = try #require(Self.servings.first { $0.options == options })
        var offers: [JSON] = []
        var listings: [String] = []
        var images: [[UInt8]] = []
        for program in [nil, "qemu-nbd"] {
            let place = try Place()
            let words = options.last?.hasSuffix("filename=") == true ? options.dropLast() + ["\(options.last ?? "")\(place.folder.path("r.raw"))"] : options + ["r.raw"]
            let server = try place.serve(program, ["-t"] + words)
            let name = options.contains("-x") ? options[1].addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? "" : ""
            let uri = "nbd+unix:///\(name)?socket=\(place.socket)"
            let offer = try JSON(parsing: try mustRun("nbdinfo", ["--json", uri]).output)
            offers.append(offer["exports"]?[0] ?? .null)
            #expect(offers.last?["export-size"]?.integer == serving.size)
            listings.append(try mustRun("qemu-nbd", ["-L", "-k", place.socket]).text)
            if serving.isWritable {
                let commands = ["write -P 9 64k 64k", "write -f -P 0 128k 64k", "write -z -u 256k 64k", "discard 512k 64k", "flush", "write -P 5 1000 100"]
                let done = try mustRun("qemu-io", ["-f", "raw", "-d", "unmap"] + commands.flatMap { ["-c", $0] } + [uri])
                #expect(!done.text.contains("failed"), "\(done)")
            }
            #expect(server.stop())
            images.append(try place.folder.read("r.raw"))
        }
        for key in ["is_read_only", "can_flush", "can_fua", "can_trim", "can_zero", "can_cache", "can_fast_zero", "can_df", "can_multi_conn", "contexts", "description", "export-name"] {
            #expect(offers[0][key] == offers[1][key], "\(key)")
        }
        #expect(listings[0] == listings[1])
        #expect(firstDifference(images[0], images[1]) == nil)
    }

    @Test("on a TCP port, at an address of one's choice, as qemu-nbd does")
    func overTCP() throws {
        for program in [nil, "qemu-nbd"] {
            let place = try Place()
            // Somebody else may take a free port before it is used: then the next one is tried.
            var server: BackgroundServer?
            var port = 0
            for _ in 0..<20 where server == nil {
                port = Int.random(in: 20_000...30_000)
                server = try? BackgroundServer(
                    program ?? place.tool, ["--fork", "--pid-file=\(place.folder.path("pid"))", "-t", "-b", "127.0.0.1", "-p", "\(port)", "-f", "raw", "r.raw"],
                    pidFile: place.folder.path("pid"), in: place.folder.url)
            }
            let running = try #require(server)
            #expect(try mustRun("nbdinfo", ["--size", "nbd://127.0.0.1:\(port)"]).text == "1048576\n")
            #expect(try mustRun(place.tool, ["-L", "-b", "127.0.0.1", "-p", "\(port)"]).text == mustRun("qemu-nbd", ["-L", "-b", "127.0.0.1", "-p", "\(port)"]).text)
            #expect(running.stop())
        }
    }

    @Test("persistent bitmaps are told of, the same by both, and unknown ones refused")
    func bitmaps() throws {
        var maps: [String] = []
        for program in [nil, "qemu-nbd"] {
            let place = try Place()
            for name in ["one", "two"] { try QEMU.img("bitmap", "--add", "a.qcow2", name, in: place.folder) }
            try QEMU.io("a.qcow2", ["write -P 5 3M 100k"], in: place.folder)
            let server = try place.serve(program, "-t", "-r", "-B", "one", "-B", "two", "-f", "qcow2", "a.qcow2")
            // The order of contexts means nothing; qemu-nbd tells the last bitmap first.
            let listing = try mustRun("qemu-nbd", ["-L", "-k", place.socket]).text.components(separatedBy: "\n").sorted()
            maps.append(try mustRun("nbdinfo", ["--map=qemu:dirty-bitmap:two", place.uri]).text + listing.joined(separator: "\n"))
            #expect(server.stop())
            let refused = try run(program ?? place.tool, ["-k", place.socket, "-B", "none", "-f", "qcow2", "a.qcow2"], in: place.folder.url)
            #expect(refused.ending == .exited(1) && refused.errorText.contains("Bitmap 'none' is not found"), "\(refused)")
        }
        #expect(maps[0] == maps[1] && maps[0].contains("qemu:dirty-bitmap:one"))
    }

    @Test("without a host both IPs are listened on, by the tool and by the daemon, as QEMU's programs do")
    func bothIPs() throws {
        for isDaemon in [false, true] {
            for program in [nil, isDaemon ? "qemu-storage-daemon" : "qemu-nbd"] {
                let place = try Place()
                // Somebody else may take a free port before it is used: then the next one is tried.
                var server: ChildProcess?
                var port = 0
                for _ in 0..<20 where server?.isRunning != true {
                    port = Int.random(in: 20_000...30_000)
                    let words =
                        isDaemon
                        ? (program.map { [$0] } ?? [Strata.binary, "daemon"]) + ["--blockdev", "driver=file,node-name=disk,filename=r.raw",
                           "--nbd-server", "addr.type=inet,addr.host=,addr.port=\(port)", "--export", "nbd,id=e,node-name=disk,name="]
                        : [program ?? place.tool, "-t", "-e", "0", "-b", "", "-p", "\(port)", "-f", "raw", "r.raw"]
                    let started = try ChildProcess(words[0], Array(words.dropFirst()), in: place.folder.url)
                    _ = waitUntil { (try? run("nbdinfo", ["--size", "nbd://127.0.0.1:\(port)"]).succeeded) == true || !started.isRunning }
                    server = started
                }
                let running = try #require(server)
                defer { running.send(SIGKILL) }
                for host in ["127.0.0.1", "[::1]"] { #expect(try mustRun("nbdinfo", ["--size", "nbd://\(host):\(port)"]).text == "1048576\n", "\(program ?? "ours") on \(host)") }
            }
        }
    }

    /// As systemd does it: sockets as descriptors from 3 on, and the process's own id. The last one is TCP; its port is noted in a file.
    private static let starter = """
        import os, socket, sys
        path, count = sys.argv[1], int(sys.argv[2])
        sockets = []
        for number in range(count):
            if number == count - 1 and count > 1:
                s = socket.create_server(("127.0.0.1", 0))
                with open("port.new", "w") as file: file.write(str(s.getsockname()[1]))
                os.rename("port.new", "port")
            else:
                s = socket.socket(socket.AF_UNIX); s.bind(path + "-" * number); s.listen()
            sockets.append(s)
        copies = [os.dup2(s.fileno(), 100 + number) for number, s in enumerate(sockets)]
        for number, copy in enumerate(copies): os.dup2(copy, 3 + number); os.set_inheritable(3 + number, True)
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count))
        os.execv(sys.argv[3], sys.argv[3:])
        """

    @Test("a socket that the process was started with is listened on")
    func socketActivation() throws {
        let place = try Place()
        let server = try ChildProcess("python3", ["-c", Self.starter, place.socket, "1", place.tool, "-f", "raw", "r.raw"], in: place.folder.url)
        #expect(waitUntil { place.folder.contains("socket") })
        let read = try mustRun("qemu-io", ["-r", "-f", "raw", "-c", "read -P 7 0 1M", place.uri])
        #expect(!read.text.contains("failed"))
        #expect(try server.wait().succeeded)
        let refused = try run("python3", ["-c", Self.starter, place.folder.path("second"), "1", place.tool, "-p", "1", "-f", "raw", "r.raw"], in: place.folder.url)
        expectClearError(refused, naming: ["--port"])
    }

    @Test("of several sockets that the process was started with each is listened on, and their clients share the disk")
    func severalSockets() throws {
        let place = try Place()
        let server = try ChildProcess("python3", ["-c", Self.starter, place.socket, "3", place.tool, "-t", "-e", "0", "-f", "raw", "r.raw"], in: place.folder.url)
        defer { server.send(SIGKILL) }
        #expect(waitUntil { place.folder.contains("port") })
        let port = String(decoding: try place.folder.read("port"), as: UTF8.self)
        let uris = [place.uri, "nbd+unix:///?socket=\(place.socket)-", "nbd://127.0.0.1:\(port)"]
        for (number, uri) in uris.enumerated() {
            let before = number == 0 ? 7 : number + 10
            let done = try mustRun("qemu-io", ["-f", "raw", "-c", "read -P \(before) 0 64k", "-c", "write -P \(number + 11) 0 64k", "-c", "flush", uri])
            #expect(!done.text.contains("failed"), "\(done)")
        }
    }

    @Test("nbdcopy takes a whole image through several connections")
    func copying() throws {
        let place = try Place()
        let server = try place.serve(nil, "-e", "4", "-t", "-f", "qcow2", "a.qcow2")
        try mustRun("nbdcopy", ["-C", "4", place.uri, "copy.raw"], in: place.folder.url)
        #expect(server.stop())
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
            let server = try place.serve(program, ["-t", "-f", "raw", "r.raw"] + credentials("server"))
            #expect(try mustRun(client, ["-L", "-k", place.socket] + credentials("client")).text.contains("size:  1048576"))
            let refused = try run(client, ["-L", "-k", place.socket])
            #expect(!refused.succeeded && refused.errorText.contains("TLS"), "\(refused)")
            #expect(server.stop())
        }
    }
}
