import Foundation
import StrataTesting
import Testing

/// The same scenarios, through the QEMU project's own QMP client, on QEMU's storage daemon and on ours: the same answers, ends of jobs, bitmaps and bytes.
@Suite("backups, as a management layer makes them")
struct BackupTests {
    enum Scenario: String, CaseIterable, Sendable, CustomTestStringConvertible {
        case syncModes = "sync_modes", refusals, chain, bitmapModes = "bitmap_modes", errors, fleecing, underLoad = "under_load", cancelled, grouped
        case driveBackup = "drive_backup", driveMirror = "drive_mirror"
        var testDescription: String { rawValue }
    }

    private static func play(_ scenario: String, on daemon: [String]) throws -> String {
        let folder = try TemporaryFolder()
        let script = Strata.root.appending(path: "Tests/Conformance/backup-scenarios.py").path
        let played = try run(Strata.python, [script, scenario] + daemon, in: folder.url, atMost: .seconds(150))
        #expect(played.succeeded, "\(played)")
        return words(played.text)
    }

    /// Without what differs on purpose: who holds a node is said in more words by us, and QEMU's daemon has a warning.
    private static func words(_ text: String) -> String {
        text.split(separator: "\n").filter { !$0.hasPrefix("warning:") && !$0.hasPrefix("Formatting ") }
            .map { line in
                let ours = [" are both required by ", ". It is held by ", " not supported for this drive "]
                let more = ours.lazy.compactMap { line.firstRange(of: $0) }.first
                return more.map { String(line[..<$0.lowerBound]) } ?? String(line)
            }
            .joined(separator: "\n")
    }

    @Test("the same as on QEMU's daemon", arguments: Scenario.allCases)
    func sameAsQEMU(_ scenario: Scenario) throws {
        let theirs = try Self.play(scenario.rawValue, on: ["qemu-storage-daemon"])
        #expect(!theirs.isEmpty)
        #expect(try Self.play(scenario.rawValue, on: [Strata.binary, "daemon"]) == theirs)
    }
}
