import Foundation
import StrataTesting
import Testing

@Suite("engines that the kernel may refuse")
struct EngineTests {
    /// strace stands in for a container that forbids io_uring.
    @Test("where io_uring is refused, requests are served all the same, and one warning says so", arguments: ["EPERM", "ENOSYS"])
    func ringRefused(error: String) throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-f", "raw", "disk.raw", "4M", in: folder)
        try QEMU.io("disk.raw", format: "raw", ["write -P 0x42 0 4M"], in: folder)
        // Source and target bypass the page cache, so that every request needs an engine.
        let finished = try mustRun(
            "strace",
            ["-f", "-qq", "-o", "trace", "-e", "trace=io_uring_setup", "-e", "inject=io_uring_setup:error=\(error)"]
                + [Strata.binary, "img", "convert", "-f", "raw", "-O", "qcow2", "-T", "none", "-t", "none", "disk.raw", "copy.qcow2"],
            in: folder.url)
        #expect(finished.errorText.components(separatedBy: "io_uring").count - 1 == 1, "\(finished)")
        #expect(finished.errorText.contains("warning"), "\(finished)")
        // Every context asks once and no more.
        let asked = try String(contentsOfFile: folder.path("trace"), encoding: .utf8).components(separatedBy: "io_uring_setup").count - 1
        #expect(asked >= 1)
        try QEMU.mustFindClean("copy.qcow2", in: folder)
        #expect(try QEMU.contents(of: "copy.qcow2", in: folder).allSatisfy { $0 == 0x42 })
    }
}
