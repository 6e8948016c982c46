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

    @Test("the same as on QEMU's daemon", arguments: Scenario.allCases)
    func sameAsQEMU(_ scenario: Scenario) throws { try ScenarioDuel.compare("backup-scenarios.py", scenario.rawValue) }
}
