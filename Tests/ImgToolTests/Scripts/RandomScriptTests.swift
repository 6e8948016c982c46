import Foundation
import StrataTesting
import Synchronization
import Testing

/// Scripts of random commands, legal and illegal, do the same to images and say the same about them in both programs.
@Suite("random scripts run unchanged", .serialized)
struct RandomScriptTests {
    /// How many: `STRATA_SCRIPTS`, or 1,000, with --extended 5,000.
    private static let count = ProcessInfo.processInfo.environment["STRATA_SCRIPTS"].flatMap(Int.init) ?? (extendedRun ? 5000 : 1000)
    /// The seed of the first script: `STRATA_SEED` runs others.
    private static let start = ProcessInfo.processInfo.environment["STRATA_SEED"].flatMap(UInt64.init) ?? 1
    private static let length = 10

    @Test("outputs, exit statuses and contents are qemu-img's")
    func scripts() {
        // Threads, because scripts wait for processes; two for each core, so that one waits while another works.
        let queue = Queue()
        let workers = DispatchGroup()
        let threads = (0..<2 * ProcessInfo.processInfo.activeProcessorCount).map { _ in
            workers.enter()
            return Thread {
                defer { workers.leave() }
                queue.run()
            }
        }
        threads.forEach { $0.start() }
        workers.wait()
        for (seed, failure) in queue.failures.withLock({ $0 }).sorted(by: { $0.key < $1.key }) { Issue.record("STRATA_SEED=\(seed) STRATA_SCRIPTS=1\n\(failure)") }
    }

    /// The scripts that nobody has taken yet, and what became of the others.
    private final class Queue: Sendable {
        let failures = Mutex<[UInt64: String]>([:])
        private let next = Atomic(0)

        func run() {
            while true {
                let index = next.wrappingAdd(1, ordering: .relaxed).oldValue
                guard index < RandomScriptTests.count else { return }
                let seed = RandomScriptTests.start &+ UInt64(index)
                do {
                    if let failure = try RandomScriptTests.failure(ofScript: seed) { failures.withLock { $0[seed] = failure } }
                } catch {
                    let script = RandomScript(seed: seed, length: RandomScriptTests.length).commands.map(ScriptDuel.shell).joined(separator: "\n")
                    failures.withLock { $0[seed] = "\(error)\n\(script)" }
                }
            }
        }
    }

    private static func failure(ofScript seed: UInt64) throws -> String? {
        let script = RandomScript(seed: seed, length: length)
        guard try ScriptDuel.difference(in: script.commands) != nil else { return nil }
        let shortest = try ScriptDuel.minimised(script.commands)
        return shortest.map(ScriptDuel.shell).joined(separator: "\n") + "\n" + (try ScriptDuel.difference(in: shortest) ?? "it did not fail again")
    }
}
