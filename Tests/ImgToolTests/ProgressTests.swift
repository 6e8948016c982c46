import Foundation
import StrataTesting
import Testing

@Suite("what commands say while they work", .serialized)
struct ProgressTests {
    /// A slow conversion that has begun: its output so far is one line, and its target is there.
    private func withConversion(_ flags: [String], _ body: (ChildProcess) throws -> Void) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([["create", "-q", "a.raw", "4M"], ["io", "-f", "raw", "-c", "write -P 7 0 4M", "a.raw"]])
        let process = try ChildProcess(pair.program.path, ["convert", "-f", "raw", "-r", "4M", "-m", "1"] + flags + ["a.raw", "o.raw"], in: pair.ours)
        let target = pair.ours.appending(path: "o.raw").path
        #expect(try waitUntil { try !process.outputSoFar().output.isEmpty && FileManager.default.fileExists(atPath: target) })
        try body(process)
        try process.wait()
    }

    @Test("SIGUSR1 asks how far it is, and the work goes on")
    func question() throws {
        try withConversion(["-p"]) { process in
            process.send(SIGUSR1)
            let finished = try process.wait()
            #expect(finished.errorText.wholeMatch(of: #/    \([0-9.]+/100%\)\n/#) != nil && finished.succeeded, "\(finished)")
        }
    }

    @Test("an interrupted conversion says that its target is incomplete", arguments: [SIGINT, SIGTERM])
    func interruption(signal: Int32) throws {
        try withConversion(["-p"]) { process in
            process.send(signal)
            let finished = try process.wait()
            #expect(finished.errorText.contains("qemu-img: interrupted: 'o.raw' is incomplete\n") && finished.ending == .signalled(signal), "\(finished)")
        }
    }

    @Test("--progress=json prints objects that grow to 100")
    func json() throws {
        try withConversion(["--progress=json"]) { process in
            let finished = try process.wait()
            let values = try finished.text.split(separator: "\n").map { line in
                try #require((try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Double])?["progress"])
            }
            #expect(values == values.sorted() && values.first == 0 && values.last == 100 && values.count > 3 && finished.succeeded, "\(values)")
        }
    }

    /// Commands that read `b.qcow2` slowly, or make much, with what they leave when they are interrupted; nil for those that write nothing.
    private static let slow = [
        ("convert SLOW o.raw", "'o.raw' is incomplete"), ("dd SLOW of=o.raw", "'o.raw' is incomplete"), ("commit SLOW", "still has all of its data: commit it again"),
        ("rebase -b other.qcow2 -F qcow2 SLOW", "still has its old backing file: rebase it again"), ("compare SLOW o.qcow2", nil), ("measure -O qcow2 SLOW", nil),
        ("check SLOW", nil), ("map SLOW", nil), ("bench -c 100000 -s 64k SLOW", nil),
        ("resize -f raw --preallocation full o.raw 8G", "resizing 'o.raw' is incomplete: resize it again"),
        ("amend -o refcount_bits=64 SLOW", "is incomplete: amend it again"), ("check -r all SLOW", "is incomplete: repair it again"),
        ("snapshot -c s SLOW", "may not have changed: list them"), ("create -f qcow2 -o preallocation=full o.new 8G", "'o.new' is incomplete"),
        ("create -f qcow2 -o preallocation=metadata,cluster_size=512 o.new 64G", "'o.new' is incomplete"),
    ] as [(String, String?)]

    /// Those, and what takes one long step.
    private static let interrupted: [(String, String?)] = slow + [("bitmap --merge b SLOW c", "may not have changed: look at them with info")]

    /// The words of such a command: its image is read from a device that takes some seconds for it.
    private func words(_ command: String) -> [String] {
        let image = "driver=qcow2,file.driver=throttle,file.throttle-group=t,file.file.driver=file,file.file.filename=b.qcow2"
        let compared = "driver=qcow2,file.filename=o.qcow2"
        return command.split(separator: " ").flatMap { word -> [String] in
            switch word {
            case "SLOW": ["--object", "throttle-group,id=t,x-iops-total=20,x-bps-total=300000", "--image-opts", command.hasPrefix("dd") ? "if=\(image)" : image]
            case "o.qcow2": [compared]
            default: [String(word)]
            }
        }
    }

    private func withSlowImages(_ body: (ToolPair) throws -> Void) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([
            ["create", "-q", "-f", "qcow2", "a.qcow2", "4M"], ["create", "-q", "-f", "qcow2", "other.qcow2", "4M"],
            ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "-b", "a.qcow2", "-F", "qcow2", "b.qcow2"], ["io", "-c", "write -P 7 0 1M", "-c", "write -P 8 2M 1M", "b.qcow2"],
            ["convert", "-O", "qcow2", "b.qcow2", "o.qcow2"], ["create", "-q", "-f", "raw", "o.raw", "1M"], ["bitmap", "--add", "-g", "512", "b.qcow2", "b"],
            ["bitmap", "--add", "-g", "512", "b.qcow2", "c"],
        ])
        try body(pair)
    }

    @Test("SIGUSR1 is a question to every command that may take long, and ends none", arguments: slow.map(\.0))
    func questions(command: String) throws {
        try withSlowImages { pair in
            let process = try ChildProcess(pair.program.path, words(command), in: pair.ours)
            #expect(
                try waitUntil {
                    // Its handler has to be there: an early one is asked again.
                    if SignalSet.catches(SIGUSR1, process.identifier) { process.send(SIGUSR1) }
                    return try !process.outputSoFar().errors.isEmpty || !process.isRunning
                })
            process.send(SIGKILL)
            let errors = try process.wait().errorText
            #expect(errors.firstMatch(of: #/^    \([0-9.]+/100%\)\n/#) != nil, "\(errors)")
        }
    }

    @Test("an interrupted command says what it leaves, and one that writes nothing says nothing", arguments: interrupted)
    func interruptions(command: String, consequence: String?) throws {
        try withSlowImages { pair in
            let process = try ChildProcess(pair.program.path, words(command), in: pair.ours)
            #expect(waitUntil { consequence == nil ? SignalSet.catches(SIGUSR1, process.identifier) : SignalSet.catches(SIGINT, process.identifier) })
            process.send(SIGINT)
            let finished = try process.wait()
            #expect(finished.ending == .signalled(SIGINT), "\(finished)")
            #expect(finished.errorText.isEmpty == (consequence == nil) && finished.errorText.hasSuffix(consequence.map { "\($0)\n" } ?? ""), "\(finished)")
        }
    }

    @Test("a question ends no command, long or short", arguments: ["info", "snapshot -l", "bitmap --clear", "bench -c 10"])
    func shortCommands(command: String) throws {
        try withSlowImages { pair in
            var words = words(command + " SLOW") + (command.hasPrefix("bitmap") ? ["b"] : [])
            // Slow enough to be asked while it begins.
            words = words.map { $0.replacing("x-iops-total=20", with: "x-iops-total=5") }
            let process = try ChildProcess(pair.program.path, words, in: pair.ours)
            #expect(waitUntil { SignalSet.catches(SIGUSR1, process.identifier) || !process.isRunning })
            process.send(SIGUSR1)
            #expect(try process.wait().succeeded)
        }
    }

    @Test("a person at a terminal sees that a command takes long", arguments: interrupted.map(\.0))
    func terminal(command: String) throws {
        try withSlowImages { pair in
            // Nothing but a few bytes of metadata.
            let words = words(command).map { command.hasPrefix("bitmap") ? $0.replacing("x-iops-total=20", with: "x-iops-total=3") : $0 }
            let script = Strata.root.appending(path: "Tests/Conformance/shell-terminal.py").path
            let finished = try run(
                Strata.python, [script, pair.root.path, "[[\"/100%)\", {\"signal\": 15}]]", pair.program.path] + words, in: pair.ours)
            #expect(!finished.errorText.contains("waited for"), "\(finished)")
        }
    }

    @Test("a conversion comes to its end although nobody reads its progress any more", arguments: ["-p", "--progress=json"])
    func readerGone(style: String) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([["create", "-q", "a.raw", "4M"], ["io", "-f", "raw", "-c", "write -P 7 0 4M", "a.raw"]])
        let finished = try run("/bin/bash", ["-c", "'\(pair.program.path)' convert \(style) -f raw -r 4M -m 1 a.raw o.raw | true; exit ${PIPESTATUS[0]}"], in: pair.ours)
        #expect(finished.succeeded && finished.errorText.isEmpty, "\(finished)")
        #expect(try ToolPair.run(ToolPair.qemu, ["compare", "-f", "raw", "-F", "raw", "a.raw", "o.raw"], in: pair.ours).status == 0)
    }

    @Test("that nobody reads the answer is no failure, that it cannot be written is one", arguments: ["info b", "map b", "measure b", "snapshot -l b", "--help", "create --help"])
    func answerUnread(command: String) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([["create", "-q", "-f", "qcow2", "b", "4M"], ["snapshot", "-c", "s", "b"]])
        let unread = try run("/bin/bash", ["-c", "(sleep 0.2; exec '\(pair.program.path)' \(command)) | true; exit ${PIPESTATUS[0]}"], in: pair.ours)
        #expect(unread.succeeded && unread.errorText.isEmpty, "\(unread)")
        #expect(try run("/bin/bash", ["-c", "'\(pair.program.path)' \(command) >/dev/full"], in: pair.ours).ending == .exited(1))
    }

    @Test("a style of progress that does not exist is refused")
    func unknown() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        #expect(try pair.runOurs(["convert", "--progress=xml", "a", "b"]).errors == "qemu-img: --progress expects 'line' or 'json' not 'xml'\n")
    }
}

/// What a process does about signals, as the kernel tells it.
enum SignalSet {
    static func catches(_ signal: Int32, _ process: pid_t) -> Bool {
        guard let status = try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8),
            let line = status.split(separator: "\n").first(where: { $0.hasPrefix("SigCgt:") }), let mask = UInt64(line.dropFirst(7).trimmingCharacters(in: .whitespaces), radix: 16)
        else { return false }
        return mask & (1 << UInt64(signal - 1)) != 0
    }
}
