import Foundation
import StrataTesting
import Testing

/// Jobs, bitmaps and transactions: the same scenarios on QEMU's storage daemon and on ours.
@Suite("scenarios of jobs against qemu-storage-daemon")
struct JobScenariosAgainstQEMUTests {
    enum Jobs: String, CaseIterable, Sendable, CustomTestStringConvertible {
        case create, verbs, mirrorLimits = "mirror_limits", driveMirrorActive = "drive_mirror_active", policies, stubborn, guarded, removed, rawBase = "raw_base", readOnlyAgain = "read_only_again", moving
        var testDescription: String { rawValue }
    }

    @Test("images made by blockdev-create, verbs in each status, limits, modes, errors, chains on raw images", arguments: Jobs.allCases)
    func jobs(_ scenario: Jobs) throws { try ScenarioDuel.compare("job-scenarios.py", scenario.rawValue) }

    enum Bitmaps: String, CaseIterable, Sendable, CustomTestStringConvertible {
        case survive, readOnly = "read_only", transactions, copyBeforeWrite = "copy_before_write", discardSource = "discard_source"
        var testDescription: String { rawValue }
    }

    @Test("bitmaps live through everything that happens to chains; transactions and fleecing, whatever fails", arguments: Bitmaps.allCases)
    func bitmaps(_ scenario: Bitmaps) throws { try ScenarioDuel.compare("bitmap-scenarios.py", scenario.rawValue) }

    enum Daily: String, CaseIterable, Sendable, CustomTestStringConvertible {
        case snapshotAndCommit = "snapshot_and_commit", streamOfTheMiddle = "stream_of_the_middle", storageMigration = "storage_migration"
        case commitIntoReadOnly = "commit_into_read_only"
        var testDescription: String { rawValue }
    }

    @Test("what management layers do every day, under a writing guest", arguments: Daily.allCases)
    func daily(_ scenario: Daily) throws { try ScenarioDuel.compare("daily-scenarios.py", scenario.rawValue) }

    private static func number(_ name: String) -> Int? { ProcessInfo.processInfo.environment[name].flatMap { Int($0) } }
    private static let batches = 10

    /// `STRATA_DUELS=1000` plays more; `STRATA_DUEL=17` plays that one.
    @Test("random jobs, legal and illegal, end alike: answers, statuses, graphs, events and what a guest reads", arguments: 0..<batches)
    func random(batch: Int) throws {
        if let seed = Self.number("STRATA_DUEL") {
            if batch == 0 { try ScenarioDuel.compareRandom("random-jobs.py", seed: seed) }
            return
        }
        let count = Self.number("STRATA_DUELS") ?? 40
        for seed in stride(from: batch, to: count, by: Self.batches) { try ScenarioDuel.compareRandom("random-jobs.py", seed: seed) }
    }
}
