import Foundation
import Testing

/// Scripts of random commands, legal and illegal, do the same to images and say the same about them in both programs.
@Suite("random scripts run unchanged", .serialized)
struct RandomScriptTests {
    /// How many: `STRATA_SCRIPTS` for more than the tests' usual number.
    private static let count = ProcessInfo.processInfo.environment["STRATA_SCRIPTS"].flatMap(Int.init) ?? 60
    /// The seed of the first script: `STRATA_SEED` runs others.
    private static let start = ProcessInfo.processInfo.environment["STRATA_SEED"].flatMap(UInt64.init) ?? 1
    private static let length = 10

    @Test("outputs, exit statuses and contents are qemu-img's")
    func scripts() throws {
        for index in 0..<Self.count {
            let seed = Self.start &+ UInt64(index)
            let script = RandomScript(seed: seed, length: Self.length)
            guard try ScriptDuel.difference(in: script.commands) != nil else { continue }
            let shortest = try ScriptDuel.minimised(script.commands)
            let difference = try ScriptDuel.difference(in: shortest) ?? "it did not fail again"
            Issue.record("STRATA_SEED=\(seed) STRATA_SCRIPTS=1\n\(shortest.map(ScriptDuel.shell).joined(separator: "\n"))\n\(difference)")
        }
    }
}
