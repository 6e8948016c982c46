import Foundation
import StrataTesting

/// A storage daemon, ours or QEMU's, that is told what to do step by step; what it answers and tells is written down so that two can be compared.
final class JobStage {
    let folder: TemporaryFolder
    let daemon: Daemon
    /// Answers and what queries say, in the order of the questions.
    private(set) var answers: [String] = []
    /// `ID EVENT DETAIL` in the order of telling.
    private(set) var told: [String] = []

    /// - Parameter program: nil for ours.
    init(_ program: String?, in folder: TemporaryFolder) throws {
        self.folder = folder
        daemon = try Daemon(nbd: false, program: program, in: folder)
    }

    private func takeIn(_ messages: [JSON]) {
        for message in messages {
            guard let name = message["event"]?.string, let data = message["data"] else { continue }
            let id = data["id"]?.string ?? data["device"]?.string ?? ""
            switch name {
            case "JOB_STATUS_CHANGE": told.append("\(id) \(data["status"]?.string ?? "?")")
            case "BLOCK_JOB_ERROR": told.append("\(id) error \(data["operation"]?.string ?? "?") \(data["action"]?.string ?? "?")")
            case "BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED":
                told.append("\(id) \(name) \(data["type"]?.string ?? "?") \(data["len"]?.integer ?? -1)/\(data["offset"]?.integer ?? -1) \(data["error"]?.string ?? "")")
            case "BLOCK_JOB_CANCELLED", "BLOCK_JOB_PENDING": told.append("\(id) \(name) \(data["type"]?.string ?? "?")")
            default: break
            }
        }
    }

    /// Runs a command, whether it is refused or not.
    @discardableResult
    func run(_ command: String, _ arguments: JSON = [:]) throws -> JSON? {
        defer { takeIn(daemon.monitor.takeEvents()) }
        do {
            let answer = try daemon.monitor.execute(command, arguments)
            answers.append("\(command): done")
            return answer
        } catch let refusal as QMPLineClient.Refusal {
            answers.append("\(command): \(refusal)")
            return nil
        }
    }

    /// The same for what has to succeed before the test can begin.
    @discardableResult
    func must(_ command: String, _ arguments: JSON = [:]) throws -> JSON {
        defer { takeIn(daemon.monitor.takeEvents()) }
        return try daemon.monitor.execute(command, arguments)
    }

    /// Reads on until the line has been told as often as that.
    func wait(for line: String, times: Int = 1) throws {
        takeIn(daemon.monitor.takeEvents())
        while told.filter({ $0 == line }).count < times { takeIn([try daemon.monitor.readLine()]) }
    }

    /// Reads on until a line that begins so has been told.
    func wait(prefix: String) throws {
        takeIn(daemon.monitor.takeEvents())
        while !told.contains(where: { $0.hasPrefix(prefix) }) { takeIn([try daemon.monitor.readLine()]) }
    }

    /// Writes down what the lists of jobs say.
    func noteJobs() throws {
        let jobs = try must("query-jobs").array ?? []
        answers.append(contentsOf: jobs.map { job in
            "\(job["id"]?.string ?? "") \(job["type"]?.string ?? "") \(job["status"]?.string ?? "") \(job["current-progress"]?.integer ?? -1)/"
                + "\(job["total-progress"]?.integer ?? -1) \(job["error"]?.string ?? "")"
        })
        for job in try must("query-block-jobs").array ?? [] {
            answers.append(
                ["device", "type", "status", "io-status", "error"].map { job[$0]?.string ?? "-" }.joined(separator: " ") + " "
                    + ["paused", "ready", "auto-finalize", "auto-dismiss", "actively-synced"].map { "\(job[$0].map { "\($0)" } ?? "-")" }.joined(separator: " ")
                    + " \(job["speed"]?.integer ?? -1) \(job["len"]?.integer ?? -1) \(job["offset"]?.integer ?? -1)")
        }
    }

    /// Writes down which nodes there are and what each is based on.
    func noteGraph() throws {
        let nodes = try must("query-named-block-nodes", ["flat": true]).array ?? []
        answers.append(
            nodes.map { node in
                let name = node["node-name"]?.string ?? ""
                let backing = node["backing_file"]?.string.map { URL(fileURLWithPath: $0).lastPathComponent } ?? "-"
                return "\(name.hasPrefix("#") ? "#" : name):\(node["drv"]?.string ?? ""):\(backing):\(node["ro"].map { "\($0)" } ?? "")"
            }.sorted().joined(separator: " "))
    }

    /// What was told, without the pauses that drained sections make in QEMU.
    var toldWithoutPauses: [String] {
        var lines: [String] = []
        for line in told {
            if line.hasSuffix(" running"), lines.last?.hasSuffix(" paused") == true, lines.last?.split(separator: " ").first == line.split(separator: " ").first {
                lines.removeLast()
            } else if line.hasSuffix(" null"), lines.last?.hasSuffix(" created") == true {
                // A job that was never more than a mistake is told of for some mistakes and not for others.
                lines.removeLast()
            } else if line.hasSuffix(" ready"), lines.last?.hasSuffix(" standby") == true {
                lines.removeLast()
            } else {
                lines.append(line)
            }
        }
        return lines
    }

    static let programs: [String?] = ["/usr/bin/qemu-storage-daemon", nil]
}

/// A chain of images `base` to `top` with data in each, and an empty disk.
struct ChainImages {
    static let size = 16 << 20

    static func make(in folder: TemporaryFolder, _ names: [String] = ["base", "mid", "top"]) throws {
        for (index, name) in names.enumerated() {
            var words = ["create", "-q", "-f", "qcow2"]
            if index > 0 { words += ["-b", "\(names[index - 1]).qcow2", "-F", "qcow2"] }
            words.append("\(name).qcow2")
            if index == 0 { words.append("\(size)") }
            try mustRun("qemu-img", words, in: folder.url)
            let start = index * 2
            try mustRun(
                "qemu-io",
                ["-c", "write -P \(index + 1) \(start)M 4M", "-c", "write -P \(index + 17) \(start * 1000 + 12345678) 70000", "-c", "write -z 1M 65536", "\(name).qcow2"],
                in: folder.url)
        }
        try mustRun("qemu-img", ["create", "-q", "-f", "qcow2", "target.qcow2", "\(size)"], in: folder.url)
    }

    static func node(_ name: String, backing: String? = nil, readOnly: Bool = false) -> JSON {
        var options: [String: JSON] = [
            "driver": "qcow2", "node-name": .string(name), "read-only": .bool(readOnly), "backing": backing.map { .string($0) } ?? .null,
            "file": ["driver": "file", "node-name": .string("\(name)-file"), "filename": .string("\(name).qcow2")],
        ]
        if name == "target" { options["backing"] = nil }
        return .object(options)
    }
}

extension JobStage {
    /// Opens a chain of named nodes, and `target`.
    func openChain(_ names: [String] = ["base", "mid", "top"], readOnly: Set<String> = []) throws {
        for (index, name) in names.enumerated() {
            try must("blockdev-add", ChainImages.node(name, backing: index > 0 ? names[index - 1] : nil, readOnly: readOnly.contains(name)))
        }
        try must("blockdev-add", ChainImages.node("target"))
    }
}
