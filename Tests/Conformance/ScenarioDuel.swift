import Foundation
import StrataTesting
import Testing

/// The same script, through the QEMU project's own QMP client, on QEMU's storage daemon and on ours: both must say the same.
enum ScenarioDuel {
    /// - Parameters:
    ///   - script: a Python program in this folder; its arguments are `scenario` and how to start a daemon.
    /// - Returns: what it said, and how it ended.
    static func play(_ script: String, _ scenario: String, on daemon: [String]) throws -> (lines: [String], end: Finished) {
        let folder = try TemporaryFolder()
        let path = Strata.root.appending(path: "Tests/Conformance/\(script)").path
        let played = try run(Strata.python, ["-B", path, scenario] + daemon, in: folder.url, atMost: .seconds(300))
        return (words(played.text), played)
    }

    /// Without what differs on purpose: who holds a node is said in more words by us, and QEMU's daemon has warnings and tells of images that it makes.
    private static func words(_ text: String) -> [String] {
        text.split(separator: "\n").filter { !$0.hasPrefix("warning:") && !$0.hasPrefix("Formatting ") }
            .map { line in
                let ours = [" are both required by ", ". It is held by ", " not supported for this drive "]
                let more = ours.lazy.compactMap { line.firstRange(of: $0) }.first
                return (more.map { String(line[..<$0.lowerBound]) } ?? String(line)).replacing("consistent-read", with: "consistent read")
            }
    }

    /// QEMU's daemon dies now and then while jobs run on a busy machine, at an assertion about a mutex for one. Then it has said nothing about what is
    /// compared, and the script is played again.
    private static func playTheirs(_ script: String, _ scenario: String) throws -> (lines: [String], end: Finished) {
        var theirs = try play(script, scenario, on: ["qemu-storage-daemon"])
        for _ in 0..<2 where !theirs.end.succeeded && ["Assertion", "Disconnected", "is disconnected"].contains(where: theirs.end.errorText.contains) {
            theirs = try play(script, scenario, on: ["qemu-storage-daemon"])
        }
        return theirs
    }

    /// Plays on both, and compares line by line.
    static func compare(_ script: String, _ scenario: String) throws {
        let theirs = try playTheirs(script, scenario)
        try #require(theirs.end.succeeded && !theirs.lines.isEmpty, "\(theirs.end)")
        let ours = try play(script, scenario, on: [Strata.binary, "daemon"])
        #expect(ours.end.succeeded, "\(ours.end)")
        compare(ours.lines, with: theirs.lines, scenario)
    }

    /// The same for a random sequence, which QEMU's daemon does not always survive: then what it has said until its death is compared.
    static func compareRandom(_ script: String, seed: Int) throws {
        let theirs = try play(script, "\(seed)", on: ["qemu-storage-daemon"])
        let ours = try play(script, "\(seed)", on: [Strata.binary, "daemon"])
        #expect(ours.end.succeeded, "seed \(seed): \(ours.end)")
        if !theirs.end.succeeded {
            try #require(theirs.end.errorText.contains("Disconnected"), "seed \(seed): \(theirs.end)")
            compare(Array(ours.lines.prefix(theirs.lines.count)), with: theirs.lines, "seed \(seed)")
        } else {
            compare(ours.lines, with: theirs.lines, "seed \(seed)")
        }
    }

    /// Our refusals go on with who holds what, and what to do.
    private static func compare(_ ours: [String], with theirs: [String], _ name: String) {
        for (index, (our, their)) in zip(ours, theirs).enumerated() where our != their && !our.hasPrefix("\(their). ") {
            Issue.record("\(name), line \(index): \(our)\nand QEMU: \(their)\nafter \(theirs[max(0, index - 3)..<index])")
            return
        }
        #expect(ours.count == theirs.count, "\(name)")
    }
}
