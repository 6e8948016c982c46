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
        // Left by a daemon that was killed; a new one replaces them.
        for stale in [nbdPath, monitorPath] where FileManager.default.fileExists(atPath: stale) { try FileManager.default.removeItem(atPath: stale) }
        var words = (program.map { [$0] } ?? [Strata.binary, "daemon"]) + (nbd ? ["--nbd-server", "addr.type=unix,addr.path=\(nbdPath)"] : []) + arguments
        words += ["--chardev", "socket,id=qmp,path=\(monitorPath),server=on,wait=off", "--monitor", "chardev=qmp"]
        words = launcher + words
        let process = try ChildProcess(words[0], Array(words.dropFirst()), in: folder.url)
        self.process = process
        var client: QMPLineClient?
        _ = waitUntil {
            if FileManager.default.fileExists(atPath: monitorPath) { client = try? QMPLineClient(path: monitorPath, negotiate: negotiate) }
            return client != nil || !process.isRunning
        }
        guard let client else {
            process.send(SIGKILL)
            throw HarnessError("the daemon did not open its monitor: \(try process.wait())")
        }
        monitor = client
    }

    deinit {
        process.send(SIGKILL)
    }

    /// An NBD URI of an export.
    package func uri(_ export: String) -> String { "nbd+unix:///\(export)?socket=\(nbdPath)" }

    /// Opens an image as file and format nodes and exports the format node, all under `name`.
    package func serve(_ image: String, format: String = "qcow2", as name: String = "disk", writable: Bool = true, backing: JSON? = nil) throws {
        try monitor.execute(
            "blockdev-add", ["driver": "file", "node-name": .string("\(name)-file"), "filename": .string(image), "read-only": .bool(!writable)])
        var node: [String: JSON] = [
            "driver": .string(format), "node-name": .string(name), "file": .string("\(name)-file"), "read-only": .bool(!writable),
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
