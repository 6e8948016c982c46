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

    @Test("native AIO hands the kernel no more requests at once than the file or the thread allows", arguments: [(file: 1, thread: 0), (0, 2), (3, 2), (0, 0)])
    func batches(limit: (file: Int, thread: Int)) throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-f", "raw", "disk.raw", "4M", in: folder)
        let daemon = try Daemon(
            ["--object", "iothread,id=io,aio-max-batch=\(limit.thread)"], launcher: ["strace", "-f", "-qq", "-o", "trace", "-e", "trace=io_submit"], in: folder)
        try daemon.monitor.execute(
            "blockdev-add", ["driver": "file", "node-name": "disk", "filename": "disk.raw", "aio": "native", "aio-max-batch": .integer(limit.file), "cache": ["direct": true]])
        try daemon.monitor.execute("block-export-add", ["type": "nbd", "id": "disk", "node-name": "disk", "writable": true, "iothread": "io"])
        let commands = (0..<64).map { "aio_write -P 5 \($0 * 65536) 65536" } + ["aio_flush", "read -P 5 0 4M"]
        let finished = try mustRun("qemu-io", ["-f", "raw"] + commands.flatMap { ["-c", $0] } + [daemon.uri("disk")], in: folder.url)
        #expect(!finished.text.contains("failed"), "\(finished)")
        try daemon.quit()
        // `io_submit(0x7f0000000000, 2, [...`
        let trace = try String(contentsOfFile: folder.path("trace"), encoding: .utf8)
        let batches = trace.split(separator: "\n").compactMap { line -> Int? in
            guard let call = line.range(of: "io_submit("), case let words = line[call.upperBound...].split(separator: ", ", maxSplits: 2), words.count > 1 else { return nil }
            return Int(words[1])
        }
        let allowed = [limit.file, limit.thread].filter { $0 > 0 }.min() ?? .max
        #expect(!batches.isEmpty && batches.allSatisfy { (1...allowed).contains($0) }, "\(batches)")
    }
}
