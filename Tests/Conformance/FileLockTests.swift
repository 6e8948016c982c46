import Foundation
import StrataTesting
import Testing

@Suite("files: locks and lost flushes")
struct FileLockTests {
    @Test("a lock conflict names the lock, the file, and the process that holds it")
    func holder() throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-f", "qcow2", "disk.qcow2", "1M", in: folder)
        let socket = folder.path("qemu.sock")
        let peer = try ChildProcess(
            "qemu-storage-daemon",
            [
                "--blockdev", "file,node-name=f,filename=\(folder.path("disk.qcow2"))", "--blockdev", "qcow2,node-name=d,file=f", "--chardev",
                "socket,id=c,path=\(socket),server=on,wait=off", "--monitor", "c",
            ], in: folder.url)
        defer { peer.send(SIGKILL) }
        // The monitor comes after the nodes.
        #expect(waitUntil { FileManager.default.fileExists(atPath: socket) })
        let daemon = try Daemon(in: folder)
        do {
            try daemon.monitor.execute(
                "blockdev-add",
                ["driver": "qcow2", "node-name": "d", "file": ["driver": "file", "filename": .string(folder.path("disk.qcow2"))]])
            Issue.record("two processes write to one image")
        } catch let refusal as QMPLineClient.Refusal {
            #expect(refusal.message.hasPrefix("Failed to get \""), "\(refusal)")
            #expect(refusal.message.contains("process \(peer.identifier) (qemu-storage-d"), "\(refusal)")
        }
        // The other way round: QEMU is kept out by ours in the words it has for itself.
        peer.send(SIGTERM)
        try peer.wait()
        try daemon.monitor.execute(
            "blockdev-add", ["driver": "qcow2", "node-name": "d", "file": ["driver": "file", "filename": .string(folder.path("disk.qcow2"))]])
        let refused = try run("qemu-io", ["-c", "write 0 512", "disk.qcow2"], in: folder.url)
        #expect(!refused.succeeded && refused.errorText.contains("lock"), "\(refused)")
        try daemon.quit()
    }

    @Test("locking=off takes no locks and locking=on takes them")
    func lockingOption() throws {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 0, count: 65536), to: "disk")
        let daemon = try Daemon(in: folder)
        for (locking, expected) in [("off", 0), ("on", 3), ("auto", 3)] {
            try daemon.monitor.execute(
                "blockdev-add", ["driver": "file", "node-name": "f", "filename": .string(folder.path("disk")), "locking": .string(locking)])
            try daemon.monitor.execute("block-export-add", ["type": "nbd", "id": "e", "node-name": "f", "writable": true])
            #expect(try OpenFiles.lockedBytes(of: folder.path("disk")).count == expected, "locking=\(locking)")
            try daemon.monitor.execute("block-export-del", ["id": "e"])
            try daemon.monitor.execute("blockdev-del", ["node-name": "f"])
        }
        try daemon.quit()
    }

    /// strace makes one fdatasync fail, as a dying disk would. The kernel would call the next one a success.
    @Test("a flush that failed makes later ones fail, until the file is opened anew")
    func flushFailure() throws {
        let folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 0, count: 65536), to: "disk")
        let daemon = try Daemon(
            launcher: ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=1"], in: folder)
        let node: JSON = ["driver": "file", "node-name": "f", "filename": .string(folder.path("disk")), "aio": "threads"]
        let export: JSON = ["type": "nbd", "id": "e", "node-name": "f", "writable": true]
        try daemon.monitor.execute("blockdev-add", node)
        try daemon.monitor.execute("block-export-add", export)
        for attempt in 1...3 {
            let finished = try run("qemu-io", ["-f", "raw", "-t", "writeback", "-c", "write 0 512", "-c", "flush", daemon.uri("f")])
            #expect(finished.ending == .exited(1) && finished.text.contains("wrote 512/512"), "attempt \(attempt): \(finished)")
        }
        try daemon.monitor.execute("block-export-del", ["id": "e", "mode": "hard"])
        _ = try daemon.monitor.event("BLOCK_EXPORT_DELETED")
        try daemon.monitor.execute("blockdev-del", ["node-name": "f"])
        try daemon.monitor.execute("blockdev-add", node)
        try daemon.monitor.execute("block-export-add", export)
        try mustRun("qemu-io", ["-f", "raw", "-t", "writeback", "-c", "write 0 512", "-c", "flush", daemon.uri("f")])
        daemon.process.send(SIGTERM)
        try daemon.process.wait()
    }
}
