import Foundation
import StrataTesting
import Testing

/// What a file node may do with storage of every kind, under every access option, step by step.
///
/// Each cell says: the result (`ok`, or why not), how the descriptor in use is open, and which image locks are held. qemu-storage-daemon does
/// the same with the same commands in every cell, and is run to show it, except that it has no descriptor sets.
@Suite("access matrix", .serialized)
struct AccessMatrixTests {
    /// Columns: open; attach a writer (a writable export); detach it; resize to 2 MiB; reopen for writing (read-only=off, auto-read-only=off); delete.
    private static let specification = """
        storage         | option         | open         | attach writer             | detach | resize         | reopen for writing | delete
        ----------------+----------------+--------------+---------------------------+--------+----------------+--------------------+----------
        read-write file | read-only      | ok r -       | read-only r -             | .      | read-only r -  | ok rw -            | ok closed -
        read-write file | auto-read-only | ok r -       | ok rw read,write,!resize  | ok r - | ok r -         | ok rw -            | ok closed -
        read-write file | neither        | ok rw -      | ok rw read,write,!resize  | ok rw -| ok rw -        | ok rw -            | ok closed -
        no permission   | read-only      | ok r -       | read-only r -             | .      | read-only r -  | EACCES r -         | ok closed -
        no permission   | auto-read-only | ok r -       | EACCES r -                | .      | EACCES r -     | EACCES r -         | ok closed -
        no permission   | neither        | EACCES closed -
        read-only mount | read-only      | ok r -       | read-only r -             | .      | read-only r -  | EROFS r -          | ok closed -
        read-only mount | auto-read-only | ok r -       | EROFS r -                 | .      | EROFS r -      | EROFS r -          | ok closed -
        read-only mount | neither        | EROFS closed -
        immutable file  | read-only      | ok r -       | read-only r -             | .      | read-only r -  | EPERM r -          | ok closed -
        immutable file  | auto-read-only | ok r -       | EPERM r -                 | .      | EPERM r -      | EPERM r -          | ok closed -
        immutable file  | neither        | EPERM closed -
        read-only loop  | read-only      | ok r -       | read-only r -             | .      | read-only r -  | EACCES r -         | ok closed -
        read-only loop  | auto-read-only | ok r -       | EACCES r -                | .      | EACCES r -     | EACCES r -         | ok closed -
        read-only loop  | neither        | EACCES closed -
        fdset: ro       | read-only      | ok r -       | read-only r -             | .      | read-only r -  | no-rw-member r -   | ok closed -
        fdset: ro       | auto-read-only | ok r -       | no-rw-member r -          | .      | no-rw-member r - | no-rw-member r - | ok closed -
        fdset: ro       | neither        | no-rw-member closed -
        fdset: rw       | read-only      | no-ro-member closed -
        fdset: rw       | auto-read-only | no-ro-member closed -
        fdset: rw       | neither        | ok rw -      | ok rw read,write,!resize  | ok rw -| ok rw -        | ok rw -            | ok closed -
        fdset: ro, rw   | read-only      | ok r -       | read-only r -             | .      | read-only r -  | ok rw -            | ok closed -
        fdset: ro, rw   | auto-read-only | ok r -       | ok rw read,write,!resize  | ok r - | ok r -         | ok rw -            | ok closed -
        fdset: ro, rw   | neither        | ok rw -      | ok rw read,write,!resize  | ok rw -| ok rw -        | ok rw -            | ok closed -
        """

    enum Storage: String, CaseIterable, Sendable {
        case readWriteFile = "read-write file"
        case noPermission = "no permission"
        case readOnlyMount = "read-only mount"
        case immutableFile = "immutable file"
        case readOnlyLoop = "read-only loop"
        case readOnlySet = "fdset: ro"
        case readWriteSet = "fdset: rw"
        case fullSet = "fdset: ro, rw"

        var isSet: Bool { rawValue.hasPrefix("fdset") }
    }

    enum Access: String, CaseIterable, Sendable {
        case readOnly = "read-only"
        case autoReadOnly = "auto-read-only"
        case neither

        var options: [String: JSON] {
            switch self {
            case .readOnly: ["read-only": true]
            case .autoReadOnly: ["read-only": false, "auto-read-only": true]
            case .neither: ["read-only": false]
            }
        }
    }

    /// One row as text, cells separated by bars.
    private static func row(_ storage: Storage, _ access: Access, qemu: Bool) throws -> String {
        let place = try Place(storage, qemu: qemu)
        defer { place.remove() }
        let daemon = try Daemon(place.arguments, launcher: place.launcher, program: qemu ? "qemu-storage-daemon" : nil, in: place.folder)
        let monitor = daemon.monitor
        var node: [String: JSON] = ["driver": .string(place.driver), "node-name": "disk", "filename": .string(place.filename)]
        node.merge(access.options) { $1 }
        func cell(mostOpen: Int = 1, _ step: () throws -> Void) throws -> String {
            var result = "ok"
            do { try step() } catch let refusal as QMPLineClient.Refusal { result = kind(of: refusal.message) }
            var files = OpenFiles()
            // A descriptor that was exchanged is closed a moment later.
            _ = try waitUntil {
                files = try OpenFiles(of: daemon.process.identifier, path: place.path)
                // Members of sets are always open; what counts is the duplicate in use.
                for member in place.members { if let index = files.modes.firstIndex(of: member) { files.modes.remove(at: index) } }
                return files.modes.count <= mostOpen
            }
            return "\(result) \(files)"
        }
        var cells = [try cell { try monitor.execute("blockdev-add", .object(node)) }]
        if cells[0].contains("Unknown driver") {
            // As long as there is no host_device of ours, our `file` takes devices too.
            node["driver"] = "file"
            cells = [try cell { try monitor.execute("blockdev-add", .object(node)) }]
        }
        if cells[0].hasPrefix("ok") {
            let export: JSON = ["type": "nbd", "id": "e", "node-name": "disk", "writable": true]
            cells.append(try cell { try monitor.execute("block-export-add", export) })
            cells.append(
                cells[1].hasPrefix("ok")
                    ? try cell {
                        try monitor.execute("block-export-del", ["id": "e"])
                        _ = try monitor.event("BLOCK_EXPORT_DELETED")
                    } : ".")
            cells.append(try cell { try monitor.execute("block_resize", ["node-name": "disk", "size": 2_097_152]) })
            node["read-only"] = false
            node["auto-read-only"] = nil
            cells.append(try cell { try monitor.execute("blockdev-reopen", ["options": [.object(node)]]) })
            cells.append(try cell(mostOpen: 0) { try monitor.execute("blockdev-del", ["node-name": "disk"]) })
        }
        try daemon.quit()
        return ([storage.rawValue, access.rawValue] + cells).joined(separator: " | ")
    }

    /// What a refusal says, in a word: the errno that the kernel gave, or our own reason.
    private static func kind(of message: String) -> String {
        for (text, word) in [
            ("has no read-write descriptor", "no-rw-member"), ("has no read-only descriptor", "no-ro-member"), ("Permission denied", "EACCES"),
            ("Operation not permitted", "EPERM"), ("Read-only file system", "EROFS"), ("read-only", "read-only"),
            ("Cannot grow device files", "device"), ("Cannot change the size", "device"),
        ] where message.contains(text) { return word }
        return "[\(message)]"
    }

    @Test("every cell is as the specification says, by us and by QEMU", arguments: Storage.allCases)
    func matrix(storage: Storage) throws {
        func normal(_ line: some StringProtocol) -> [String] { line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) } }
        let wanted = Self.specification.split(separator: "\n").map(normal).filter { $0.first == storage.rawValue }
        #expect(wanted.count == Access.allCases.count)
        for qemu in storage.isSet ? [false] : [false, true] {
            let rows = try Access.allCases.map { try Self.row(storage, $0, qemu: qemu) }
            #expect(rows.map(normal) == wanted, "\(qemu ? "QEMU" : "ours"):\n\(rows.joined(separator: "\n"))")
        }
    }

    /// The files of a chain `top` over `base`, in this order.
    private func files(_ daemon: Daemon) throws -> [String] {
        try ["top", "base"].map { try OpenFiles(of: daemon.process.identifier, path: daemon.folder.path($0)).description }
    }

    private func chain(_ launcher: [String], _ body: (Daemon) throws -> Void) throws {
        let folder = try TemporaryFolder()
        chmod(folder.url.path, 0o777)
        try QEMU.img("create", "-f", "qcow2", "base", "1M", in: folder)
        try QEMU.img("create", "-f", "qcow2", "-b", "base", "-F", "qcow2", "top", in: folder)
        chmod(folder.path("top"), 0o666)
        chmod(folder.path("base"), 0o444)
        let daemon = try Daemon(launcher: launcher, in: folder)
        func node(_ name: String, _ more: [String: JSON] = [:]) -> JSON {
            var node: [String: JSON] = [
                "driver": "qcow2", "node-name": .string(name), "read-only": false, "auto-read-only": true,
                "file": ["driver": "file", "filename": .string(folder.path(name))],
            ]
            node.merge(more) { $1 }
            return .object(node)
        }
        try daemon.monitor.execute("blockdev-add", node("base", ["backing": nil]))
        try daemon.monitor.execute("blockdev-add", node("top", ["backing": "base"]))
        try body(daemon)
        try daemon.quit()
        try QEMU.mustFindClean("top", in: folder)
        try QEMU.mustFindClean("base", in: folder)
    }

    private func export(_ name: String) -> JSON { ["type": "nbd", "id": .string(name), "node-name": .string(name), "writable": true] }

    @Test("in a chain each file is open for writing exactly while somebody writes to its image")
    func writersInAChain() throws {
        try chain([]) { daemon in
            let reading = try files(daemon)
            #expect(reading.allSatisfy { $0.hasPrefix("r ") }, "\(reading)")
            for (name, position) in [("top", 0), ("base", 1)] {
                try daemon.monitor.execute("block-export-add", export(name))
                let writing = try files(daemon)
                #expect(writing[position].hasPrefix("rw ") && writing[position].contains("write,"), "\(writing)")
                #expect(writing[1 - position].hasPrefix("r "), "\(writing)")
                try mustRun("qemu-io", ["-f", "raw", "-c", "write -P 0x5a 64k 64k", "-c", "read -P 0x5a 64k 64k", daemon.uri(name)])
                try daemon.monitor.execute("block-export-del", ["id": .string(name), "mode": "hard"])
                _ = try daemon.monitor.event("BLOCK_EXPORT_DELETED")
                #expect(try files(daemon) == reading)
            }
        }
    }

    @Test("who wants to write to a backing file that cannot be written gets one error, QEMU's, and nothing has changed")
    func readOnlyBacking() throws {
        try chain(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]) { daemon in
            let (before, nodes) = (try files(daemon), try daemon.monitor.execute("query-named-block-nodes"))
            do {
                try daemon.monitor.execute("block-export-add", export("base"))
                Issue.record("a read-only image was exported for writing")
            } catch let refusal as QMPLineClient.Refusal {
                #expect(refusal.message == "Cannot export read-only node 'base' as writable")
            }
            #expect(try files(daemon) == before)
            #expect(try daemon.monitor.execute("query-named-block-nodes") == nodes)
            // The top is another matter.
            try daemon.monitor.execute("block-export-add", export("top"))
            #expect(try files(daemon)[0].hasPrefix("rw "))
        }
    }

    /// Another process asks for the lock over and over while the file is exchanged. If there were a moment without locks, it would get in.
    @Test("nobody gets in while a file is exchanged")
    func noWindow() throws {
        let folder = try TemporaryFolder()
        try QEMU.img("create", "-f", "qcow2", "disk", "1M", in: folder)
        let daemon = try Daemon(in: folder)
        let node: [String: JSON] = ["driver": "qcow2", "node-name": "disk", "file": ["driver": "file", "filename": .string(folder.path("disk"))]]
        func with(_ more: [String: JSON]) -> JSON { .object(node.merging(more) { $1 }) }
        try daemon.monitor.execute("blockdev-add", with([:]))
        // A shell-free loop of attempts to write lock the byte that says that nobody else may write.
        let script = """
            import fcntl, os, struct, sys, time
            fd = os.open(sys.argv[1], os.O_RDWR)
            end = time.monotonic() + 60
            tries = 0
            open(sys.argv[3], "w").close()
            while not os.path.exists(sys.argv[2]) and time.monotonic() < end:
                for byte in (100, 201):
                    try:
                        fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, byte, 1, 0))
                        print("got in", byte)
                        sys.exit(1)
                    except (BlockingIOError, PermissionError):
                        tries += 1
                        if tries == 1000: open(sys.argv[4], "w").close()
            print(tries)
            """
        let intruder = try ChildProcess("python3", ["-c", script, folder.path("disk"), folder.path("stop"), folder.path("ready"), folder.path("busy")], in: folder.url)
        #expect(waitUntil { folder.contains("ready") })
        var round = 0
        while round < 60 || !folder.contains("busy") {
            defer { round += 1 }
            guard intruder.isRunning else { break }
            let options: [[String: JSON]] = [["cache": ["no-flush": true]], ["read-only": true], [:], ["cache": ["direct": true]]]
            try daemon.monitor.execute("blockdev-reopen", ["options": [with(options[round % options.count])]])
        }
        try folder.write([], to: "stop")
        let finished = try intruder.wait()
        #expect(finished.succeeded && Int(finished.text.trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0 > 0, "\(finished)")
        try daemon.quit()
    }
}

/// Storage of one kind, and how a daemon gets to it.
private struct Place {
    let folder: TemporaryFolder
    /// As the kernel names the file.
    var path: String
    var filename: String
    var driver = "file"
    var launcher: [String] = []
    var arguments: [String] = []
    /// How the members of the set are open.
    var members: [String] = []
    private let storage: AccessMatrixTests.Storage

    init(_ storage: AccessMatrixTests.Storage, qemu: Bool) throws {
        self.storage = storage
        folder = try TemporaryFolder()
        try folder.write([UInt8](repeating: 0x42, count: 1 << 20), to: "disk")
        path = folder.path("disk")
        filename = path
        switch storage {
        case .readWriteFile: break
        case .noPermission:
            chmod(path, 0o444)
            chmod(folder.url.path, 0o777)
            launcher = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        case .readOnlyMount:
            try FileManager.default.createDirectory(atPath: folder.path("mount"), withIntermediateDirectories: false)
            let script = #"mount -t tmpfs none mount && cp disk mount/disk && mount -o remount,ro mount && exec "$@""#
            launcher = ["unshare", "-m", "sh", "-c", script, "sh"]
            path = folder.path("mount/disk")
            filename = path
        case .immutableFile: try mustRun("chattr", ["+i", path])
        case .readOnlyLoop:
            path = try mustRun("losetup", ["-r", "-f", "--show", path]).text.trimmingCharacters(in: .whitespacesAndNewlines)
            filename = path
            driver = "host_device"
        case .readOnlySet: share(["7<disk"], ["r"])
        case .readWriteSet: share(["7<>disk"], ["rw"])
        case .fullSet: share(["7<disk", "8<>disk"], ["r", "rw"])
        }
    }

    private mutating func share(_ redirections: [String], _ modes: [String]) {
        launcher = ["bash", "-c", "exec \(redirections.joined(separator: " ")); exec \"$@\"", "bash"]
        for number in 7..<7 + modes.count { arguments += ["--add-fd", "fd=\(number),set=1"] }
        members = modes
        filename = "/dev/fdset/1"
    }

    func remove() {
        switch storage {
        case .immutableFile: _ = try? run("chattr", ["-i", path])
        case .readOnlyLoop: _ = try? run("losetup", ["-d", path])
        default: break
        }
    }
}
