import Foundation

/// A running `strata daemon` with a QMP socket and, if asked, an NBD server, in a folder of its own. It is killed with this object.
package final class Daemon {
    package let folder: TemporaryFolder
    package let process: ChildProcess
    package let monitor: QMPLineClient
    package let nbdPath: String
    package var monitorPath: String { folder.path("qmp.sock") }

    /// - Parameters:
    ///   - arguments: in front of the ones that open the monitor.
    ///   - nbd: start an NBD server on a unix socket from the command line.
    ///   - negotiate: leave the monitor's capability mode.
    ///   - launcher: a program and its arguments that become the daemon by exec: `setpriv`, `unshare`, a shell that opens files.
    ///   - program: another storage daemon that understands these options; nil for ours.
    package init(
        _ arguments: [String] = [], nbd: Bool = true, negotiate: Bool = true, launcher: [String] = [], program: String? = nil, in folder: TemporaryFolder
    ) throws {
        self.folder = folder
        nbdPath = folder.path("nbd.sock")
        let monitorPath = folder.path("qmp.sock")
        var words = (program.map { [$0] } ?? [Strata.binary, "daemon"]) + (nbd ? ["--nbd-server", "addr.type=unix,addr.path=\(nbdPath)"] : []) + arguments
        words += ["--chardev", "socket,id=qmp,path=\(monitorPath),server=on,wait=off", "--monitor", "chardev=qmp"]
        (process, monitor) = try Self.start(
            launcher + words, replacing: [nbdPath, monitorPath], monitor: monitorPath, negotiate: negotiate, attempts: program == nil ? 1 : 4, in: folder)
    }

    /// Starts a storage daemon and connects to its monitor.
    ///
    /// Ours gets one attempt. QEMU 10.0's gets more: when a client connects while the daemon starts, about one start in three thousand ends in a
    /// segmentation fault, a connection that is closed at once or a monitor that never greets, because its monitor thread and its main thread race.
    /// No step of a test has been taken by then, so that nothing is hidden by another attempt.
    /// - Parameters:
    ///   - replacing: sockets that may be left of a daemon that was killed.
    ///   - monitor: the path of the monitor's socket, which `words` open.
    package static func start(
        _ words: [String], replacing: [String], monitor: String, negotiate: Bool = true, attempts: Int, in folder: TemporaryFolder
    ) throws -> (ChildProcess, QMPLineClient) {
        var failures: [String] = []
        while failures.count < attempts {
            for stale in replacing where FileManager.default.fileExists(atPath: stale) { try FileManager.default.removeItem(atPath: stale) }
            let process = try ChildProcess(words[0], Array(words.dropFirst()), in: folder.url)
            var client: QMPLineClient?
            _ = waitUntil {
                if FileManager.default.fileExists(atPath: monitor) {
                    client = try? QMPLineClient(path: monitor, greetingLimit: .seconds(attempts > 1 ? 5 : 60), negotiate: negotiate)
                }
                return client != nil || !process.isRunning
            }
            if let client { return (process, client) }
            process.send(SIGKILL)
            failures.append("\(try process.wait())")
        }
        throw HarnessError("the daemon did not open its monitor: \(failures.joined(separator: "; then "))")
    }

    deinit {
        process.send(SIGKILL)
    }

    /// An NBD URI of an export.
    package func uri(_ export: String) -> String { "nbd+unix:///\(export)?socket=\(nbdPath)" }

    /// Opens an image as file and format nodes and exports the format node, all under `name`.
    /// - Parameter discard: what both nodes do about discards: `ignore` or `unmap`.
    package func serve(
        _ image: String, format: String = "qcow2", as name: String = "disk", writable: Bool = true, discard: String = "ignore", backing: JSON? = nil
    ) throws {
        try monitor.execute(
            "blockdev-add",
            [
                "driver": "file", "node-name": .string("\(name)-file"), "filename": .string(image), "read-only": .bool(!writable),
                "discard": .string(discard),
            ])
        var node: [String: JSON] = [
            "driver": .string(format), "node-name": .string(name), "file": .string("\(name)-file"), "read-only": .bool(!writable),
            "discard": .string(discard),
        ]
        node["backing"] = backing
        try monitor.execute("blockdev-add", .object(node))
        try monitor.execute(
            "block-export-add",
            ["type": "nbd", "id": .string(name), "node-name": .string(name), "name": .string(name), "writable": .bool(writable)])
    }

    /// Ends it with `quit` and expects a clean exit.
    package func quit() throws {
        try monitor.execute("quit")
        let finished = try process.wait(atMost: .seconds(30))
        guard finished.succeeded else { throw HarnessError("the daemon did not end well: \(finished)") }
    }
}
