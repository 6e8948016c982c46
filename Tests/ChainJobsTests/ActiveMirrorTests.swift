import BlockGraph
import IOCore
import JobCore
import StorageSchema
import StrataBase
import Testing

@testable import ChainJobs

@Suite("active mirrors")
struct ActiveMirrorTests {
    @Test("a target that waits at its first write does not make all later writes wait")
    func triesAgain() async throws {
        try await ChainBench.run { bench in
            // Both answer at once. The target is not ready for writing before it is written to, and with `none` the job does not do that.
            try await bench.openImage("top", over: nil, seed: 0)
            try await bench.openImage("target", over: nil, seed: 4)
            var contents = [UInt8](repeating: 0, count: bench.size)
            try await bench.fill("top", &contents, seed: 1)
            let guest = try await bench.graph.makeBackend(
                named: "guest", on: "top", PermissionGrant(used: [.consistentRead, .write], shared: [.consistentRead, .write, .writeUnchanged]))
            var options = MirrorJob.Options(source: "top", target: "target")
            (options.sync, options.isActive) = (.none, true)
            let graph = bench.graph
            let final = options
            var settings = JobSettings(id: "j", type: .mirror)
            settings.context = bench.contexts[0]
            let job = try await bench.jobs.start(settings) { job async throws(BlockError) in try await MirrorJob.make(final, job, in: graph) }
            await bench.wait(for: "j ready")
            let buffer = IOBuffer(zeroed: 4096)
            defer { withExtendedLifetime(buffer) {} }
            var atOnce: [Int] = []
            for round in 0..<200 {
                if guest.tryWrite(buffer.vector, at: GuestOffset(0)) { atOnce.append(round) } else { try await guest.write(buffer.vector, at: GuestOffset(0)) }
            }
            #expect(atOnce.count > 50, "at once: \(atOnce)")
            try await bench.jobs.cancel(job, isForced: true)
            await bench.wait(for: "j concluded")
            await bench.graph.release(guest)
        }
    }
}
