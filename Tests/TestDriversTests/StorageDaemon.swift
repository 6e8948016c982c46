import Foundation
import StrataTesting
import Testing

/// A storage daemon, ours or QEMU's, in a folder of its own, with a monitor and an NBD server. It is killed with this object.
final class StorageDaemon {
    enum Maker: CaseIterable { case qemu, ours }

    let folder: TemporaryFolder
    let process: ChildProcess
    let monitor: QMPLineClient
    /// Nodes whose first event has been seen, with the event's name.
    private var reporters: Set<String> = []

    init(_ maker: Maker, in folder: TemporaryFolder) throws {
        self.folder = folder
        let monitorPath = folder.path("qmp.sock")
        let words = [
            "--nbd-server", "addr.type=unix,addr.path=\(folder.path("nbd.sock"))", "--chardev", "socket,id=qmp,path=\(monitorPath),server=on,wait=off",
            "--monitor", "chardev=qmp",
        ]
        (process, monitor) =
            switch maker {
            case .qemu: try Daemon.start(["qemu-storage-daemon"] + words, replacing: [monitorPath, folder.path("nbd.sock")], monitor: monitorPath, attempts: 4, in: folder)
            case .ours: try Daemon.start([Strata.binary, "daemon"] + words, replacing: [monitorPath, folder.path("nbd.sock")], monitor: monitorPath, attempts: 1, in: folder)
            }
    }

    deinit { process.send(SIGKILL) }

    /// Adds a node; the text of the refusal, or nil.
    func add(_ options: JSON) throws -> String? {
        do {
            try monitor.execute("blockdev-add", options)
            return nil
        } catch let refusal as QMPLineClient.Refusal { return refusal.message }
    }

    /// Exports a node under the name `disk`.
    func export(_ node: String) throws {
        try monitor.execute("block-export-add", ["type": "nbd", "id": "disk", "node-name": .string(node), "name": "disk", "writable": true])
    }

    /// Runs one command of qemu-io on the export, with a connection of its own: QEMU's server ends a connection on which a read failed.
    /// - Returns: what it said, without how long it took.
    func io(_ command: String) throws -> String {
        let finished = try run(
            "qemu-io", ["-f", "raw", "-c", command, "nbd+unix:///disk?socket=\(folder.path("nbd.sock"))"], in: folder.url, atMost: .seconds(30))
        return (finished.text + finished.errorText).split(separator: "\n").filter { !$0.contains("ops/sec") }.joined(separator: "; ")
    }

    /// Events of quorums since the last call, without their times, in an order that does not depend on who was faster. Monitors hold back what
    /// comes more than once a second for one node, so that only its first event counts.
    func quorumEvents() throws -> [String] {
        // An answer comes after the events that were raised before the question.
        try monitor.execute("query-block-exports")
        return try monitor.takeEvents().filter { event in
            let node = event["data"]?["node-name"]?.string ?? event["data"]?["reference"]?.string
            return event["event"]?.string?.hasPrefix("QUORUM") == true && reporters.insert("\(event["event"]?.string ?? "") \(node ?? "")").inserted
        }.map { event in
            let members = event["data"]?.object ?? [:]
            let texts = try members.map { "\($0.key)=\(String(decoding: try $0.value.encoded(), as: UTF8.self))" }
            return "\(event["event"]?.string ?? "?") \(texts.sorted().joined(separator: " "))"
        }.sorted()
    }

    func quit() throws {
        try monitor.execute("quit")
        let finished = try process.wait(atMost: .seconds(30))
        guard finished.succeeded else { throw HarnessError("the daemon did not end well: \(finished)") }
    }
}

/// What the same session leaves on QEMU's daemon and on ours.
struct SessionResult: Equatable, CustomStringConvertible {
    var lines: [String] = []
    var description: String { lines.joined(separator: "\n") }
}

/// A session that both daemons go through.
struct TwinSession {
    /// Files to make: name and contents.
    var files: [String: [UInt8]] = [:]
    /// What `blockdev-add` gets; the last one, unless refused, is exported. Its node is called `top`.
    var nodes: [JSON] = []
    /// Commands of qemu-io.
    var io: [String] = []
    /// Files whose contents count afterwards.
    var inspected: [String] = []

    /// Runs the session on both and expects the same of both.
    func expectSame(_ comment: String = "", sourceLocation: SourceLocation = #_sourceLocation) throws {
        let (ours, theirs) = (try run(.ours), try run(.qemu))
        #expect(ours == theirs, "\(comment)\nours:\n\(ours)\nQEMU's:\n\(theirs)", sourceLocation: sourceLocation)
    }

    func run(_ maker: StorageDaemon.Maker) throws -> SessionResult {
        let folder = try TemporaryFolder()
        for (name, contents) in files { try folder.write(contents, to: name) }
        let daemon = try StorageDaemon(maker, in: folder)
        var result = SessionResult()
        for node in nodes {
            if let refusal = try daemon.add(node) { result.lines.append("refused: \(refusal)") }
        }
        if !io.isEmpty {
            try daemon.export("top")
            for command in io {
                result.lines.append("\(command) -> \(try daemon.io(command))")
                result.lines += try daemon.quorumEvents()
            }
        }
        try daemon.quit()
        for name in inspected { result.lines.append("\(name): \(runs(of: try folder.read(name)))") }
        return result
    }

    /// Bytes as lengths of runs of one value.
    private func runs(of bytes: [UInt8]) -> String {
        var runs: [(UInt8, Int)] = []
        for byte in bytes {
            if let last = runs.last, last.0 == byte { runs[runs.count - 1].1 += 1 } else { runs.append((byte, 1)) }
        }
        return runs.map { "\($0.1)*\($0.0)" }.joined(separator: " ")
    }
}
