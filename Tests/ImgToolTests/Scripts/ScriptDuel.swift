import Foundation
import StrataTesting

/// Runs one script with qemu-img and with ours, and tells the first thing that is not the same.
struct ScriptDuel {
    /// Commands that change nothing, whatever their options: both programs look at the same files, those that qemu-img has made or ours.
    private static let readers: Set<String> = ["info", "map", "compare", "measure"]

    /// A file system without a disk: both programs flush after every command, which would take most of the time.
    private static let memory = URL(fileURLWithPath: "/dev/shm")

    /// - Returns: nil when everything is the same.
    static func difference(in commands: [[String]]) throws -> String? {
        let pair = try ToolPair(in: memory)
        defer { pair.remove() }
        do {
            for command in commands {
                if let difference = try difference(in: command, pair) { return "\(shell(command)): \(difference)" }
            }
        } catch is GiveUp { return nil }
        var results = ScriptResults(pair)
        return try results.difference()
    }

    /// The shortest script that still fails, found by leaving out one command after another.
    static func minimised(_ commands: [[String]]) throws -> [[String]] {
        var commands = commands
        var index = commands.count - 1
        while index >= 0 {
            var shorter = commands
            shorter.remove(at: index)
            if try difference(in: shorter) != nil { commands = shorter }
            index -= 1
        }
        return commands
    }

    static func shell(_ command: [String]) -> String {
        let words = command.map { $0.isEmpty || $0.contains(" ") ? "'\($0)'" : $0 }
        return (command[0] == "io" ? "qemu-" : "qemu-img ") + words.joined(separator: " ")
    }

    private static func difference(in command: [String], _ pair: ToolPair) throws -> String? {
        if let name = command.dropLast().last, let image = try EncryptedImages.shared.image(for: command) {
            for directory in [pair.theirs, pair.ours] { try image.write(to: directory.appendingPathComponent(name)) }
            return nil
        }
        if changesNothing(command) {
            for directory in lookedAt(by: command, pair) {
                let theirs = try run(command, in: directory, pair, isOurs: false)
                let ours = try run(command, in: directory, pair, isOurs: true)
                // A check needs no backing file.
                if command[0] == "check", theirs.errors.contains("Could not open backing file") { continue }
                if !areAlike(theirs, ours, command) { return different(theirs, ours) + "(looking at \(directory.lastPathComponent))" }
            }
            return nil
        }
        let theirs = try run(command, in: pair.theirs, pair, isOurs: false)
        let ours = try run(command, in: pair.ours, pair, isOurs: true)
        // Such a disk can be written to all the same.
        if theirs.errors.contains("Image size is not a multiple of request alignment") { throw GiveUp() }
        // Ours writes zeroes where an old image has no other way to hide its backing file.
        if theirs.errors.contains("Failed to zero out new clusters: Operation not supported") { throw GiveUp() }
        // Ours keeps what QEMU drops: a kind of compression, bitmaps, zero clusters of snapshots.
        if command[0] == "amend", theirs.status == 0, ours.errors.contains("Cannot downgrade an image with") { throw GiveUp() }
        if ours.status == 0, isAlone(theirs, command) { throw GiveUp() }
        if !areAlike(theirs, ours, command) { return different(theirs, ours) }
        // What is left of an image that could not be made is a deliberate difference.
        if ["create", "convert", "dd"].contains(command[0]), !command.contains("-n"), theirs.status != 0 {
            try pair.removeImages(command.suffix(2).compactMap { $0.wholeMatch(of: #/(?:of=)?(i[0-9])/#).map { String($0.output.1) } }.suffix(1))
        }
        return nil
    }

    /// Whether qemu-img could not do what it should be able to, for reasons of its own.
    private static func isAlone(_ theirs: ToolPair.Outcome, _ command: [String]) -> Bool {
        // It has found its own state impossible.
        theirs.status == -SIGABRT && theirs.errors.contains("Assertion")
            // It cannot keep bitmaps in an image of no length.
            || theirs.errors.contains("Lost persistent bitmaps during inactivation") && theirs.errors.contains("No memory")
            // It cannot compress over clusters that are there.
            || command[0] == "convert" && command.contains("-n") && command.contains("-c") && theirs.errors.contains("error while writing at byte")
    }

    /// The images of one program, chosen by the command's words, so that a script that is shortened goes on failing; in the extended run those of both.
    private static func lookedAt(by command: [String], _ pair: ToolPair) -> [URL] {
        let both = [pair.theirs, pair.ours]
        let choice = command.joined().utf8.reduce(0) { ($0 &* 31 &+ Int($1)) & 0xffff }
        return extendedRun ? both : [both[choice / 256 % 2]]
    }

    private static func run(_ command: [String], in directory: URL, _ pair: ToolPair, isOurs: Bool) throws -> ToolPair.Outcome {
        if command[0] == "io" {
            let arguments = Array(command.dropFirst())
            return isOurs ? try pair.runOurIO(arguments, in: directory) : try ToolPair.run("/usr/bin/qemu-io", arguments, in: directory)
        }
        return isOurs ? try pair.runOurs(command, in: directory) : try ToolPair.run(ToolPair.qemu, command, in: directory)
    }

    private static func changesNothing(_ command: [String]) -> Bool {
        switch command[0] {
        case "io": command.contains("-r")
        case "bench": !command.contains("-w")
        case "check": !command.contains("-r")
        default: readers.contains(command[0]) || isList(command)
        }
    }

    private static func isList(_ command: [String]) -> Bool {
        command[0] == "snapshot" && Set(command).isDisjoint(with: ["-a", "-c", "-d"])
    }

    private static func different(_ theirs: ToolPair.Outcome, _ ours: ToolPair.Outcome) -> String { "\n=== qemu-img: \(theirs)=== ours: \(ours)" }

    /// The two go separate ways from here on, on purpose.
    private struct GiveUp: Error {}

    static func areAlike(_ theirs: ToolPair.Outcome, _ ours: ToolPair.Outcome, _ command: [String]) -> Bool {
        if theirs == ours { return true }
        let outcomes = [theirs, ours].map { outcome in
            var outcome = outcome
            for difference in deliberate { outcome = difference(outcome) }
            // In what order asynchronous requests end.
            if command.contains(where: { $0.hasPrefix("aio_") }) { outcome.output = outcome.output.split(separator: "\n").sorted().joined(separator: "\n") }
            // A repair is of an image of one's own, which both lay out as they like.
            if command[0] == "check", !changesNothing(command) {
                let layout = [" allocated, ", "Image end offset", "allocated-clusters", "image-end-offset", "fragmented-clusters", "compressed-clusters", "total-clusters"]
                outcome.output = outcome.output.split(separator: "\n").filter { line in !layout.contains { line.contains($0) } }
                    .map { $0.hasSuffix(",") ? $0.dropLast() : $0 }.joined(separator: "\n")
                if theirs.errors.contains("Could not open backing file") { outcome = .init(status: 0, output: "", errors: "") }
            }
            return outcome
        }
        return outcomes[0] == outcomes[1]
    }

    private static let deliberate: [@Sendable (ToolPair.Outcome) -> ToolPair.Outcome] = [
        // QEMU says it once for each image above the one that cannot be opened.
        { outcome in
            var outcome = outcome
            outcome.errors = outcome.errors.replacing(#/(Could not open backing file: )+/#, with: "Could not open backing file: ")
            return outcome
        },
        // How long it took, and how often somebody was told how far it is.
        { outcome in
            var outcome = outcome
            outcome.output = outcome.output.replacing(#/ops; [^(]*\([^)]*\)/#, with: "ops").replacing(#/Run completed in [0-9.]+ seconds/#, with: "Run completed")
            // A carriage return and a line feed are one character to a regular expression.
            let parts = String(outcome.output.unicodeScalars.map { $0 == "\r" ? "|" : Character($0) }).replacing(#/    \([0-9.]+\/100%\)\|/#, with: "\r")
            if parts.contains("\r") { outcome.output = parts.filter { $0 != "\r" } + "(with progress)" }
            return outcome
        },
        // How the commands of qemu-io are used is said in words of our own.
        { outcome in
            var outcome = outcome
            outcome.output = outcome.output.replacing(#/(?m)^([a-z_]+ .*) -- [a-z].*$/#) { "\($0.output.1)" }
            return outcome
        },
        // Hosts have what time it is.
        { outcome in
            var outcome = outcome
            outcome.output = outcome.output.replacing(#/"date-(n?sec)": [0-9]+/#) { "\"date-\($0.output.1)\": 0" }
            return outcome
        },
        // Ours says why.
        { outcome in
            var outcome = outcome
            outcome.errors = outcome.errors.replacing(#/(Could not create snapshot '[^']*': )The image counts references with [0-9]+ bits, which is too few for this/#) { "\($0.output.1)Invalid argument" }
            return outcome
        },
        // Nodes without a name have different numbers.
        { outcome in
            var outcome = outcome
            outcome.errors = outcome.errors.replacing(#/#block[0-9]+/#, with: "#block")
            return outcome
        },
        // QEMU warns each time it opens an image, we once.
        { outcome in
            var outcome = outcome
            let warning = "WARNING: Image format was not specified for "
            if let first = outcome.errors.range(of: warning) {
                let text = outcome.errors[first.lowerBound...].split(separator: "\n", maxSplits: 3, omittingEmptySubsequences: false).prefix(3).joined(separator: "\n") + "\n"
                while outcome.errors.contains(text + text) { outcome.errors = outcome.errors.replacing(text + text, with: text) }
            }
            return outcome
        },
        // Where the two ask the file about holes differs, so that stored zeroes are told from other data in different places.
        { outcome in
            var outcome = outcome
            outcome.output = withoutStoredZeroes(outcome.output)
            return outcome
        },
        // A lock below another image is found out when all of the chain is open.
        { outcome in
            var outcome = outcome
            if outcome.errors.contains(" lock\n") { outcome.errors = outcome.errors.replacing("Could not open backing file: ", with: "") }
            return outcome
        },
    ]

    /// A map in JSON in which data that reads as zeroes is data like any other.
    private static func withoutStoredZeroes(_ text: String) -> String {
        let pattern = #/\{ "start": ([0-9]+), "length": ([0-9]+), "depth": ([0-9]+), "present": true, "zero": (?:true|false), "data": true, "compressed": false, "offset": ([0-9]+)\}/#
        var lines: [String] = []
        var run: (start: Int, length: Int, depth: Int, offset: Int)?
        func end() {
            if let run { lines.append("data from \(run.start), \(run.length) bytes, in layer \(run.depth) at \(run.offset)") }
            run = nil
        }
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            guard let match = line.firstMatch(of: pattern)?.output, let start = Int(match.1), let length = Int(match.2), let depth = Int(match.3), let offset = Int(match.4) else {
                end()
                lines.append(String(line))
                continue
            }
            if let before = run, before.start + before.length == start, before.depth == depth, before.offset + before.length == offset {
                run = (before.start, before.length + length, depth, before.offset)
            } else {
                end()
                run = (start, length, depth, offset)
            }
        }
        end()
        return lines.joined(separator: "\n")
    }
}
