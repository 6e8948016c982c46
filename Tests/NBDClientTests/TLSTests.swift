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

    @Test("our server with shared keys, under a client that keeps many requests in flight")
    func sharedKeyServer() throws {
        let folder = try TemporaryFolder()
        try TestCertificates.make(in: folder)
        try Self.makeDisk(in: folder)
        let socket = folder.path("nbd.sock")
        let daemon = try Daemon(
            ["--object", "tls-creds-psk,id=t,dir=\(folder.url.path),endpoint=server", "--blockdev", "driver=file,node-name=disk,filename=\(folder.path("disk"))",
             "--nbd-server", "addr.type=unix,addr.path=\(socket),tls-creds=t", "--export", "nbd,id=e,node-name=disk,name=,writable=on"], nbd: false, in: folder)
        _ = waitUntil { UnixSocket(path: socket) != nil }
        let uri = "nbds+unix://qemu@/?socket=\(socket)&tls-psk-file=\(folder.path("keys.psk"))"
        let into = try run("nbdcopy", ["--requests=32", "--connections=4", folder.path("disk"), uri])
        #expect(into.succeeded, "\(into)")
        let out = try run("nbdcopy", ["--requests=32", "--connections=4", uri, folder.path("copied")])
        #expect(out.succeeded, "\(out)")
        #expect(try folder.read("copied") == folder.read("disk"))
        withExtendedLifetime(daemon) {}
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
