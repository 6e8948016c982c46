import Foundation
import StrataTesting
import Synchronization
import Testing

/// Scripts of random commands, legal and illegal, do the same to images and say the same about them in both programs.
@Suite("random scripts run unchanged", .serialized)
struct RandomScriptTests {
    /// How many: `STRATA_SCRIPTS`, or 60, with --extended 1000.
    private static let count = ProcessInfo.processInfo.environment["STRATA_SCRIPTS"].flatMap(Int.init) ?? (extendedRun ? 1000 : 60)
    /// The seed of the first script: `STRATA_SEED` runs others.
    private static let start = ProcessInfo.processInfo.environment["STRATA_SEED"].flatMap(UInt64.init) ?? 1
    private static let length = 10

    @Test("outputs, exit statuses and contents are qemu-img's")
    func scripts() {
        let failures = Mutex<[UInt64: String]>([:])
        // Threads, because scripts wait for processes.
        DispatchQueue.concurrentPerform(iterations: Self.count) { index in
            let seed = Self.start &+ UInt64(index)
            do {
                if let failure = try Self.failure(ofScript: seed) { failures.withLock { $0[seed] = failure } }
            } catch { failures.withLock { $0[seed] = "\(error)" } }
        }
        for (seed, failure) in failures.withLock({ $0 }).sorted(by: { $0.key < $1.key }) { Issue.record("STRATA_SEED=\(seed) STRATA_SCRIPTS=1\n\(failure)") }
    }

    private static func failure(ofScript seed: UInt64) throws -> String? {
        let script = RandomScript(seed: seed, length: length)
        guard try ScriptDuel.difference(in: script.commands) != nil else { return nil }
        let shortest = try ScriptDuel.minimised(script.commands)
        return shortest.map(ScriptDuel.shell).joined(separator: "\n") + "\n" + (try ScriptDuel.difference(in: shortest) ?? "it did not fail again")
    }
}
