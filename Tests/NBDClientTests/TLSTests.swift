import Foundation
import StrataTesting
import Testing

/// TLS on both sides, with certificates and with shared keys, against programs that use the same library in their own way.
@Suite("NBD over TLS", .timeLimit(.minutes(4)))
struct TLSTests {
    private static func makeDisk(in folder: TemporaryFolder) throws {
        var random = SeededGenerator(seed: runSeed)
        try folder.write(randomBytes(6 << 20, using: &random), to: "disk")
    }

    /// Copies an image out of a server with our client. - Returns: how it ended.
    private static func copy(_ folder: TemporaryFolder, object: String, options: String) throws -> Finished {
        try run(Strata.binary, ["img", "convert", "--object", object, "--image-opts", "driver=nbd," + options, "-O", "raw", folder.path("copy")])
    }

    @Test("our client trusts a server with a certificate, and not one with another name or none", arguments: ["qemu-nbd", "nbdkit"])
    func client(server: String) throws {
        let folder = try TemporaryFolder()
        try TestCertificates.make(in: folder)
        try Self.makeDisk(in: folder)
        let socket = folder.path("s")
        let program =
            server == "qemu-nbd"
            ? try ServerProgram(
                "qemu-nbd",
                ["-t", "-e", "8", "-r", "-f", "raw", "-k", socket, "--object", "tls-creds-x509,id=t,dir=\(folder.url.path),endpoint=server", "--tls-creds", "t", folder.path("disk")],
                socket: socket)
            : try ServerProgram(
                "nbdkit", ["-f", "-r", "-U", socket, "--tls=require", "--tls-certificates=\(folder.url.path)", "--tls-verify-peer", "file", folder.path("disk")], socket: socket)
        let address = "server.type=unix,server.path=\(socket),tls-creds=t"
        let alice = "tls-creds-x509,id=t,dir=\(folder.path("alice")),endpoint=client"
        let good = try Self.copy(folder, object: alice, options: address + ",tls-hostname=localhost")
        #expect(good.succeeded, "\(good)")
        #expect(try folder.read("copy") == folder.read("disk"))
        for (object, options, text) in [
            (alice, address + ",tls-hostname=otherhost", "otherhost|not trusted|name"), (alice, address, "No hostname"),
            ("tls-creds-x509,id=t,dir=\(folder.path("nobody")),endpoint=client", address + ",tls-hostname=localhost", "TLS|closed|NBD server"),
            ("tls-creds-x509,id=t,dir=\(folder.url.path),endpoint=server", address, "Expected TLS credentials for a client endpoint"),
        ] {
            let bad = try Self.copy(folder, object: object, options: options)
            #expect(!bad.succeeded)
            #expect(text.split(separator: "|").contains { bad.errorText.contains($0) }, "\(bad)")
        }
        let plain = try run(Strata.binary, ["img", "info", "--image-opts", "driver=nbd,server.type=unix,server.path=\(socket)"])
        #expect(!plain.succeeded && plain.errorText.contains("requires TLS"), "\(plain)")
        withExtendedLifetime(program) {}
    }

    @Test("shared keys, with each other's programs and a wrong key")
    func sharedKeys() throws {
        let folder = try TemporaryFolder()
        try TestCertificates.make(in: folder)
        try Self.makeDisk(in: folder)
        let socket = folder.path("s")
        let program = try ServerProgram(
            "nbdkit", ["-f", "-r", "-U", socket, "--tls=require", "--tls-psk=\(folder.path("keys.psk"))", "file", folder.path("disk")], socket: socket)
        let options = "server.type=unix,server.path=\(socket),tls-creds=t"
        let good = try Self.copy(folder, object: "tls-creds-psk,id=t,dir=\(folder.url.path),endpoint=client", options: options)
        #expect(good.succeeded, "\(good)")
        #expect(try folder.read("copy") == folder.read("disk"))
        let bad = try Self.copy(folder, object: "tls-creds-psk,id=t,dir=\(folder.path("wrong")),endpoint=client", options: options)
        #expect(!bad.succeeded && bad.errorText.contains("TLS"), "\(bad)")
        withExtendedLifetime(program) {}
    }

    @Test("our server lets in whom it trusts, and only them", arguments: [false, true])
    func server(authorizes: Bool) throws {
        let folder = try TemporaryFolder()
        try TestCertificates.make(in: folder)
        try Self.makeDisk(in: folder)
        var arguments = ["--object", "tls-creds-x509,id=t,dir=\(folder.url.path),endpoint=server"]
        if authorizes { arguments += ["--object", "authz-list,id=a,policy=deny,rules.0.match=*CN=alice*,rules.0.policy=allow,rules.0.format=glob"] }
        arguments += ["--blockdev", "driver=file,node-name=disk,filename=\(folder.path("disk"))"]
        arguments += ["--nbd-server", "addr.type=unix,addr.path=\(folder.path("nbd.sock")),tls-creds=t\(authorizes ? ",tls-authz=a" : "")"]
        arguments += ["--export", "nbd,id=e,node-name=disk,name=,writable=on"]
        let daemon = try Daemon(arguments, nbd: false, in: folder)
        _ = waitUntil { UnixSocket(path: folder.path("nbd.sock")) != nil }
        let options = "server.type=unix,server.path=\(folder.path("nbd.sock")),tls-creds=t,tls-hostname=localhost"
        func copy(as client: String) throws -> Finished {
            try Self.copy(folder, object: "tls-creds-x509,id=t,dir=\(folder.path(client)),endpoint=client", options: options)
        }
        let good = try copy(as: "alice")
        #expect(good.succeeded, "\(good)")
        #expect(try folder.read("copy") == folder.read("disk"))
        #expect(try copy(as: "mallory").succeeded == !authorizes)
        #expect(try !copy(as: "nobody").succeeded)
        // Clients of others.
        func qemu(_ client: String) throws -> Finished {
            try run("qemu-io", [
                "--object", "tls-creds-x509,id=t,dir=\(folder.path(client)),endpoint=client", "--image-opts", "driver=nbd," + options,
                "-c", "write -P 7 1M 3M", "-c", "read -P 7 1M 3M", "-c", "write -P 8 512 1k", "-c", "flush", "-c", "read -P 8 512 1k",
            ])
        }
        let written = try qemu("alice")
        #expect(written.succeeded && !written.text.contains("rror"), "\(written)")
        let bytes = try folder.read("disk")
        #expect(bytes[(1 << 20)..<(4 << 20)].allSatisfy { $0 == 7 } && bytes[512..<1536].allSatisfy { $0 == 8 })
        if authorizes { #expect(try !qemu("mallory").succeeded) }
        let plain = try run("nbdinfo", ["--size", "nbd+unix:///?socket=\(folder.path("nbd.sock"))"])
        #expect(!plain.succeeded, "a client without TLS must not be let in")
        let uri = "nbds+unix://alice@/?socket=\(folder.path("nbd.sock"))&tls-certificates=\(folder.path("alice"))&tls-hostname=localhost"
        let copied = try run("nbdcopy", [uri, folder.path("copied")])
        #expect(copied.succeeded, "\(copied)")
        #expect(try folder.read("copied") == bytes)
        withExtendedLifetime(daemon) {}
    }

    /// Our server with shared keys, and what clients call its disk.
    private static func sharedKeyDaemon(in folder: TemporaryFolder) throws -> (daemon: Daemon, socket: String, uri: String) {
        try TestCertificates.make(in: folder)
        try makeDisk(in: folder)
        let socket = folder.path("nbd.sock")
        let daemon = try Daemon(
            ["--object", "tls-creds-psk,id=t,dir=\(folder.url.path),endpoint=server", "--blockdev", "driver=file,node-name=disk,filename=\(folder.path("disk"))",
             "--nbd-server", "addr.type=unix,addr.path=\(socket),tls-creds=t", "--export", "nbd,id=e,node-name=disk,name=,writable=on"], nbd: false, in: folder)
        return (daemon, socket, "nbds+unix://qemu@/?socket=\(socket)&tls-psk-file=\(folder.path("keys.psk"))")
    }

    @Test("our server with shared keys, under a client that keeps many requests in flight")
    func sharedKeyServer() throws {
        let folder = try TemporaryFolder()
        let (daemon, _, uri) = try Self.sharedKeyDaemon(in: folder)
        let into = try run("nbdcopy", ["--requests=32", "--connections=4", folder.path("disk"), uri])
        #expect(into.succeeded, "\(into)")
        let out = try run("nbdcopy", ["--requests=32", "--connections=4", uri, folder.path("copied")])
        #expect(out.succeeded, "\(out)")
        #expect(try folder.read("copied") == folder.read("disk"))
        withExtendedLifetime(daemon) {}
    }

    @Test("nbd-server over TLS")
    func nbdServer() throws {
        let folder = try TemporaryFolder()
        try TestCertificates.make(in: folder)
        try Self.makeDisk(in: folder)
        let program = try NBDServerProgram(
            in: folder, byteCount: 6 << 20,
            settings: ["certfile = \(folder.path("server.pem"))", "keyfile = \(folder.path("server.key"))", "cacertfile = \(folder.path("ca-cert.pem"))", "force_tls = true"])
        let options = "server.type=unix,server.path=\(program.socket),export=disk,tls-creds=t,tls-hostname=localhost"
        let good = try Self.copy(folder, object: "tls-creds-x509,id=t,dir=\(folder.path("alice")),endpoint=client", options: options)
        #expect(good.succeeded, "\(good)")
        #expect(try folder.read("copy") == folder.read("disk"))
        let plain = try run(Strata.binary, ["img", "info", "--image-opts", "driver=nbd,server.type=unix,server.path=\(program.socket),export=disk"])
        #expect(!plain.succeeded && plain.errorText.contains("TLS"), "\(plain)")
        withExtendedLifetime(program) {}
    }

    @Test("nbdkit with the filter tls-fallback shows its disk over TLS, and its message in clear")
    func fallback() throws {
        let folder = try TemporaryFolder()
        try TestCertificates.make(in: folder)
        try Self.makeDisk(in: folder)
        let socket = folder.path("s")
        let program = try ServerProgram(
            "nbdkit", ["-f", "-r", "-U", socket, "--tls=on", "--tls-psk=\(folder.path("keys.psk"))", "--filter=tls-fallback", "file", folder.path("disk")], socket: socket)
        let good = try Self.copy(folder, object: "tls-creds-psk,id=t,dir=\(folder.url.path),endpoint=client", options: "server.type=unix,server.path=\(socket),tls-creds=t")
        #expect(good.succeeded, "\(good)")
        #expect(try folder.read("copy") == folder.read("disk"))
        try mustRun(Strata.binary, ["img", "convert", "--image-opts", "driver=nbd,server.type=unix,server.path=\(socket)", "-O", "raw", folder.path("clear")])
        let message = try folder.read("clear")
        #expect(message.count == 512 && String(decoding: message, as: UTF8.self).contains("TLS"))
        withExtendedLifetime(program) {}
    }

    @Test("a server that insists on TLS hears nothing that came in clear behind the wish for it")
    func injection() throws {
        let folder = try TemporaryFolder()
        let (daemon, socket, uri) = try Self.sharedKeyDaemon(in: folder)
        func option(_ number: UInt8) -> [UInt8] { Array("IHAVEOPT".utf8) + [0, 0, 0, number, 0, 0, 0, 0] }
        let agreed = ScriptedServer.reply(to: 5, 1)
        for injected in [option(8), option(3), [0x16], Array(option(8).prefix(7))] {
            let client = try #require(UnixSocket(path: socket))
            try client.send([0, 0, 0, 3] + option(5) + injected)
            #expect(try client.receive(18 + agreed.count).suffix(agreed.count) == agreed[...])
            #expect(try client.receiveSome(4096).isEmpty, "the connection is closed")
        }
        try mustRun("nbdinfo", ["--size", uri])
        try daemon.quit()
    }

    @Test("fio verifies its writes over TLS; nbddump and nbdinfo --map read them")
    func fio() throws {
        let folder = try TemporaryFolder()
        try TestCertificates.make(in: folder)
        try Self.makeDisk(in: folder)
        let socket = folder.path("nbd.sock")
        let daemon = try Daemon(
            ["--object", "tls-creds-x509,id=t,dir=\(folder.url.path),endpoint=server", "--blockdev", "driver=file,node-name=disk,filename=\(folder.path("disk"))",
             "--nbd-server", "addr.type=unix,addr.path=\(socket),tls-creds=t", "--export", "nbd,id=e,node-name=disk,name=,writable=on"], nbd: false, in: folder)
        // fio lets no URI name files: the library finds the certificates in the home directory of whoever is not root.
        let ordinary = ["--reuid=65534", "--regid=65534", "--clear-groups"]
        try mustRun("bash", ["-c", "mkdir -p home/.pki && cp -r alice home/.pki/libnbd && chmod -R a+rX . && chmod a+rwX home nbd.sock"], in: folder.url)
        let uri = "nbds+unix://alice@/?socket=\(socket)&tls-hostname=localhost"
        let finished = try run(
            "setpriv", ordinary + ["fio", "--name=v", "--ioengine=nbd", "--uri=\(uri)", "--rw=randwrite", "--bsrange=512-64k", "--blockalign=512", "--size=4M", "--iodepth=8", "--verify=crc32c", "--minimal"],
            in: URL(filePath: folder.path("home")), environment: ["HOME": folder.path("home")])
        #expect(finished.succeeded && !(finished.text + finished.errorText).contains("verify:"), "\(finished)")
        let dump = try mustRun("setpriv", ordinary + ["nbddump", "--length=4096", uri], environment: ["HOME": folder.path("home")])
        // Of the file itself, by another server and in clear.
        let theirs = try mustRun("nbdkit", ["-U", "-", "-r", "file", folder.path("disk"), "--run", "nbddump --length=4096 \"$uri\""])
        #expect(dump.text == theirs.text && dump.text.hasPrefix("0000000000: "))
        let map = try JSON(parsing: try mustRun("setpriv", ordinary + ["nbdinfo", "--map", "--json", uri], environment: ["HOME": folder.path("home")]).output)
        #expect(map.array?.reduce(0) { $0 + ($1["length"]?.integer ?? 0) } == 6 << 20)
        try daemon.quit()
    }

    @Test("where GnuTLS is told to, ciphers run in the kernel if it has them, and nothing else changes")
    func kernelCiphers() throws {
        let folder = try TemporaryFolder()
        try TestCertificates.make(in: folder)
        try Self.makeDisk(in: folder)
        try folder.write("[global]\nktls = true\n".utf8, to: "gnutls.conf")
        let settings = ["GNUTLS_SYSTEM_PRIORITY_FILE": folder.path("gnutls.conf")]
        let modules = try String(contentsOfFile: "/proc/sys/net/ipv4/tcp_available_ulp", encoding: .utf8)
        var (server, port) = (ChildProcess?.none, 0)
        for _ in 0..<20 where server?.isRunning != true {
            port = Int.random(in: 20_000...30_000)
            server = try ChildProcess(
                Strata.binary,
                ["nbd", "-t", "-r", "-b", "127.0.0.1", "-p", "\(port)", "-f", "raw", "--object", "tls-creds-x509,id=t,dir=\(folder.url.path),endpoint=server", "--tls-creds", "t",
                 folder.path("disk")], environment: settings)
            _ = waitUntil { (try? run("nbdinfo", ["--size", "nbd://127.0.0.1:\(port)"]).errorText.contains("TLS")) == true || server?.isRunning != true }
        }
        let copied = try run(
            Strata.binary,
            ["img", "--trace", "tls_handshake_end,file=\(folder.path("trace"))", "convert", "--object", "tls-creds-x509,id=t,dir=\(folder.path("alice")),endpoint=client", "--image-opts",
             "driver=nbd,server.type=inet,server.host=127.0.0.1,server.port=\(port),tls-creds=t,tls-hostname=localhost", "-O", "raw", folder.path("copy")], environment: settings)
        server?.send(SIGKILL)
        #expect(copied.succeeded, "\(copied)")
        #expect(try folder.read("copy") == folder.read("disk"))
        let trace = String(decoding: try folder.read("trace"), as: UTF8.self)
        #expect(trace.contains(modules.split(whereSeparator: \.isWhitespace).contains("tls") ? "ciphers run in " : "ciphers run in process"), "\(trace)")
    }

    @Test("credentials that are not there are named as QEMU names them")
    func missing() throws {
        let folder = try TemporaryFolder()
        for (object, text) in [
            ("tls-creds-x509,id=t,endpoint=server", "Missing 'dir' property value"),
            ("tls-creds-x509,id=t,dir=\(folder.url.path),endpoint=server", "Unable to access credentials \(folder.url.path)/ca-cert.pem: No such file or directory"),
            ("tls-creds-psk,id=t,dir=\(folder.url.path),endpoint=client", "Unable to access credentials \(folder.url.path)/keys.psk: No such file or directory"),
        ] {
            for program in [Strata.binary, "qemu-img"] {
                let words = (program == Strata.binary ? ["img"] : []) + ["info", "--object", object, "/dev/null"]
                let result = try run(program, words)
                #expect(!result.succeeded && result.errorText.contains(text), "\(result)")
            }
        }
    }
}
