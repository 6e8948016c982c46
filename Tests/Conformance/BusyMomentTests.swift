import StrataTesting
import Testing

/// The same busy moments on QEMU's storage daemon and on ours, through the QEMU project's own QMP client.
@Suite("jobs at busy moments, against qemu-storage-daemon")
struct BusyMomentTests {
    enum Scenario: String, CaseIterable, Sendable, CustomTestStringConvertible {
        case middleCommit = "middle_commit", cbwTimeout = "cbw_timeout", quits, heldByError = "held_by_error", speeds, masked, replaces, unmap
        var testDescription: String { rawValue }
    }

    @Test("guests below a job's feet, slow targets, the end of the daemon, verbs for what an error holds", arguments: Scenario.allCases)
    func sameAsQEMU(_ scenario: Scenario) throws { try ScenarioDuel.compare("busy-scenarios.py", scenario.rawValue) }
}
