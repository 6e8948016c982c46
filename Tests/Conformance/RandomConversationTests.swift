import Foundation
import StrataTesting
import Testing

/// Random commands for two storage daemons at once, ours and QEMU's. The script knows nothing of either program; it is run with seeds of this run.
@Suite("random conversations with two daemons")
struct RandomConversationTests {
    /// `STRATA_CONVERSATIONS` for more than the usual number; `STRATA_SEED` begins elsewhere.
    private static let count = ProcessInfo.processInfo.environment["STRATA_CONVERSATIONS"].flatMap { Int($0) } ?? 48
    private static let lanes = 2

    @Test("both answer alike, and nodes, jobs, bitmaps, exports and images are alike after each command", arguments: 0..<lanes)
    func conversations(lane: Int) throws {
        let folder = try TemporaryFolder()
        let share = Self.count / Self.lanes + (lane < Self.count % Self.lanes ? 1 : 0)
        let first = Int(runSeed % (1 << 40)) + lane * 1_000_000
        let script = Strata.root.appending(path: "Tests/Conformance/random-conversations.py").path
        let finished = try run(
            "python3", [script, folder.url.path, String(first), String(share), Strata.binary, "daemon"], in: folder.url, atMost: .seconds(120 + share * 20))
        #expect(finished.succeeded, "\(finished)")
    }
}
