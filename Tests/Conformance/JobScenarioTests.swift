import Foundation
import StrataTesting
import Testing

/// What management layers do every day, over QMP, while a client writes through NBD.
@Suite("jobs under a writing client")
struct JobScenarioTests {
    private static let size = 8 << 20

    /// A client that writes to a disk on a thread of its own, one request after the other, until it is told to end.
    private final class Writer: @unchecked Sendable {  // unchecked: everything that changes is under the lock
        private let client: PlainNBDClient
        private let lock = NSLock()
        private var model: [UInt8]
        private var isEnding = false
        private var failure: (any Error)?
        private var count = 0
        private let done = DispatchSemaphore(value: 0)

        init(_ daemon: Daemon, _ export: String, contents: [UInt8], seed: UInt64) throws {
            client = try PlainNBDClient(path: daemon.nbdPath, export: export)
            model = contents
            Thread { [self] in
                var random = SeededGenerator(seed: seed)
                do {
                    while !lock.withLock({ isEnding }) {
                        let length = Int.random(in: 1...20000, using: &random)
                        let start = Int.random(in: 0...(model.count - length), using: &random)
                        let byte = UInt8.random(in: 0...255, using: &random)
                        let data = [UInt8](repeating: byte, count: length)
                        if byte < 20 { try client.writeZeroes(length, at: start) } else { try client.write(data, at: start) }
                        lock.withLock {
                            model.replaceSubrange(start..<start + length, with: byte < 20 ? [UInt8](repeating: 0, count: length) : data)
                            count += 1
                        }
                        if Int.random(in: 0..<8, using: &random) == 0 { #expect(try client.read(length, at: start) == Array(model[start..<start + length])) }
                    }
                    try client.disconnect()
                } catch { lock.withLock { failure = error } }
                done.signal()
            }.start()
        }

        var writes: Int { lock.withLock { count } }

        /// - Returns: what the disk should be.
        func stop() throws -> [UInt8] {
            lock.withLock { isEnding = true }
            done.wait()
            if let failure { throw failure }
            return model
        }
    }

    private func wait(_ daemon: Daemon, _ id: String, _ status: String) throws {
        while try daemon.monitor.event("JOB_STATUS_CHANGE")["data"] != ["id": .string(id), "status": .string(status)] {}
    }

    private func start(in folder: TemporaryFolder) throws -> Daemon {
        let daemon = try Daemon(nbd: true, in: folder)
        try mustRun("qemu-img", ["create", "-q", "-f", "qcow2", "base.qcow2", "\(Self.size)"], in: folder.url)
        try mustRun("qemu-io", ["-c", "write -P 7 0 3M", "base.qcow2"], in: folder.url)
        try daemon.monitor.execute("object-add", ["qom-type": "iothread", "id": "t"])
        try daemon.monitor.execute(
            "blockdev-add", ["driver": "qcow2", "node-name": "disk", "file": ["driver": "file", "filename": "base.qcow2", "auto-read-only": true]])
        try daemon.monitor.execute(
            "block-export-add", ["type": "nbd", "id": "e", "node-name": "disk", "name": "disk", "writable": true, "iothread": "t"])
        return daemon
    }

    private var contents: [UInt8] { [UInt8](repeating: 7, count: 3 << 20) + [UInt8](repeating: 0, count: Self.size - (3 << 20)) }

    @Test("a snapshot, and the active commit that takes it back, lose nothing that a client writes")
    func snapshotAndCommit() throws {
        let folder = try TemporaryFolder()
        let daemon = try start(in: folder)
        let writer = try Writer(daemon, "disk", contents: contents, seed: 1)
        for round in 1...3 {
            #expect(waitUntil { writer.writes > round * 20 })
            try daemon.monitor.execute(
                "blockdev-snapshot-sync", ["node-name": "disk", "snapshot-node-name": "overlay", "snapshot-file": .string(folder.path("overlay\(round).qcow2"))])
            let before = writer.writes
            #expect(waitUntil { writer.writes > before + 20 })
            try daemon.monitor.execute("block-commit", ["job-id": "c", "device": "overlay"])
            try wait(daemon, "c", "ready")
            try daemon.monitor.execute("job-complete", ["id": "c"])
            try wait(daemon, "c", "null")
            let names = try daemon.monitor.execute("query-named-block-nodes", ["flat": true]).array?.compactMap { $0["node-name"]?.string } ?? []
            #expect(!names.contains("overlay"), "\(names)")
        }
        let before = writer.writes
        #expect(waitUntil { writer.writes > before + 20 })
        let expected = try writer.stop()
        try daemon.quit()
        #expect(firstDifference(try QEMU.contents(of: "base.qcow2", in: folder), expected) == nil)
        try QEMU.mustFindClean("base.qcow2", in: folder)
    }

    @Test("a disk is mirrored to another daemon and goes on there, and nothing is lost", arguments: ["background", "write-blocking"])
    func migration(mode: String) throws {
        let (here, there) = (try TemporaryFolder(), try TemporaryFolder())
        let daemon = try start(in: here)
        let target = try Daemon(nbd: true, program: "/usr/bin/qemu-storage-daemon", in: there)
        try mustRun("qemu-img", ["create", "-q", "-f", "qcow2", "new.qcow2", "\(Self.size)"], in: there.url)
        try target.monitor.execute("blockdev-add", ["driver": "qcow2", "node-name": "new", "file": ["driver": "file", "filename": "new.qcow2"]])
        try target.monitor.execute("block-export-add", ["type": "nbd", "id": "n", "node-name": "new", "name": "new", "writable": true])
        let writer = try Writer(daemon, "disk", contents: contents, seed: 2)
        try daemon.monitor.execute(
            "blockdev-add", ["driver": "nbd", "node-name": "remote", "export": "new", "server": ["type": "unix", "path": .string(target.nbdPath)]])
        try daemon.monitor.execute(
            "blockdev-mirror", ["job-id": "m", "device": "disk", "target": "remote", "sync": "full", "copy-mode": .string(mode)])
        try wait(daemon, "m", "ready")
        let before = writer.writes
        #expect(waitUntil { writer.writes > before + 20 })
        try daemon.monitor.execute("job-complete", ["id": "m"])
        try wait(daemon, "m", "null")
        // From now on it writes to the other side.
        let after = writer.writes
        #expect(waitUntil { writer.writes > after + 20 })
        let expected = try writer.stop()
        try daemon.monitor.execute("blockdev-del", ["node-name": "disk"])
        try daemon.quit()
        try target.quit()
        #expect(firstDifference(try QEMU.contents(of: "new.qcow2", in: there), expected) == nil)
    }
}
