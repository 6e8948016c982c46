import Foundation
import StrataTesting
import Testing

/// Telnet, websockets and TLS under a monitor. The steps are those of `socket-layers.py`, which knows nothing of either program.
@Suite("layers of sockets", .timeLimit(.minutes(5)))
struct SocketLayerTests {
    private static let script = Strata.root.appending(path: "Tests/Conformance/socket-layers.py").path

    @Test("telnet, websockets and TLS begin, go on and are refused as with qemu-storage-daemon")
    func layers() throws {
        let folder = try TemporaryFolder()
        try TestCertificates.make(in: folder)
        let theirs = try run("python3", [Self.script, "common", folder.url.path, "qemu-storage-daemon"], in: folder.url)
        let ours = try run("python3", [Self.script, "all", folder.url.path, Strata.binary, "daemon"], in: folder.url)
        #expect(theirs.succeeded, "\(theirs)")
        #expect(ours.succeeded, "\(ours)")
        #expect(ours.output == theirs.output)
        let text = String(decoding: theirs.output, as: UTF8.self)
        #expect(text.contains("Switching Protocols") && text.contains("turned away"))
    }
}
