import BasicDrivers
import BlockGraph
import IOCore
import JobCore
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// Counts, on any thread.
private final class Tally: Sendable {
    private let value = Atomic<Int>(0)
    var count: Int { value.load(ordering: .sequentiallyConsistent) }
    func add() { value.add(1, ordering: .sequentiallyConsistent) }
}

@Suite("speed, errors and drains of jobs")
struct JobPacingTests {
    @Test("over any time a limited job does no more than its speed allows, and not less either")
    func rate() {
        for speed in [1, 1000, 65536, 1 << 30] {
            for piece in [1, 4096, 1 << 20] {
                var (limit, now, done) = (RateLimit(speed: speed), Int64(1_000_000_000_000), 0)
                let start = now
                for _ in 0..<50 {
                    let wait = limit.wait(now: now)
                    if wait > 0 { now += wait }
                    done += piece
                    limit.charge(piece, now: now)
                }
                now += max(0, limit.wait(now: now))
                let ideal = Double(done) / Double(speed) * 1e9
                // A tenth of a second of credit at the beginning.
                #expect(Double(now - start) >= ideal - 100_000_001 - 50, "\(speed) \(piece)")
                #expect(Double(now - start) <= ideal + 50, "\(speed) \(piece)")
            }
        }
    }

    @Test("a raised limit ends the waiting, no limit never waits, and huge pieces do not overflow")
    func rateChanges() {
        var limit = RateLimit(speed: 1)
        limit.charge(1 << 40, now: 0)
        #expect(limit.wait(now: 0) > 1 << 59)
        limit.setSpeed(1 << 20, now: 5)
        #expect(limit.wait(now: 5) <= 0)
        limit.charge(1 << 20, now: 5)
        #expect(limit.wait(now: 5) > 0)
        limit.setSpeed(0, now: 6)
        limit.charge(1 << 62, now: 6)
        #expect(limit.wait(now: 6) == 0)
    }

    @Test("a job that waits for its speed can be held, sped up and cancelled at once")
    func interruptedWait() async throws {
        final class Slow: JobDriver {
            static var type: JobType { .stream }
            func run(_ job: Job) async throws(BlockError) {
                for _ in 0..<3 {
                    job.progress.add(1 << 30)
                    try await job.throttle(1 << 30)
                }
            }
        }
        let fixture = try JobFixture()
        var settings = JobSettings(id: "s", type: .stream)
        settings.speed = 1
        let job = try await fixture.registry.start(settings) { _ in Slow() }
        try await fixture.registry.pause(job)
        await fixture.wait(for: "s paused")
        try await fixture.registry.resume(job)
        await fixture.wait(for: "s running")
        try await fixture.registry.setSpeed(0, of: job)
        await fixture.wait(for: "s null")
        #expect(fixture.told.contains("s BLOCK_JOB_COMPLETED"))
        let again = try await fixture.registry.start(settings) { _ in Slow() }
        try await fixture.registry.cancel(again, isForced: false)
        await again.waitUntilConcluded()
        #expect(fixture.told.contains("s BLOCK_JOB_CANCELLED"))
        try await fixture.stop()
    }

    struct Case: Sendable {
        let policy: BlockdevOnError
        let code: BlockError.Code
        let action: BlockErrorAction
        let status: BlockDeviceIoStatus
        init(_ policy: BlockdevOnError, _ code: BlockError.Code, _ action: BlockErrorAction, _ status: BlockDeviceIoStatus) {
            (self.policy, self.code, self.action, self.status) = (policy, code, action, status)
        }
    }

    @Test("what is done about a failed request follows the policy; a job that was stopped tries again when it is resumed", arguments: [
        Case(.report, .io, .report, .ok), Case(.report, .noSpace, .report, .ok), Case(.ignore, .io, .ignore, .ok), Case(.ignore, .noSpace, .ignore, .ok),
        Case(.stop, .io, .stop, .failed), Case(.stop, .noSpace, .stop, .nospace), Case(.enospc, .io, .report, .ok),
        Case(.enospc, .noSpace, .stop, .nospace), Case(.auto, .io, .report, .ok), Case(.auto, .noSpace, .stop, .nospace),
    ])
    func policies(scene: Case) async throws {
        final class Failing: JobDriver {
            static var type: JobType { .stream }
            let scene: Case
            init(_ scene: Case) { self.scene = scene }
            func run(_ job: Job) async throws(BlockError) {
                let error = BlockError(scene.code, "one request")
                switch job.action(for: error, on: .write, policy: scene.policy) {
                case .report: throw job.reported(error)
                case .ignore: return
                case .stop: try await job.pausePoint()
                }
            }
        }
        let fixture = try JobFixture()
        let job = try await fixture.registry.start(JobSettings(id: "s", type: .stream)) { _ in Failing(scene) }
        if scene.action == .stop {
            await fixture.wait(for: "s paused")
            #expect(await fixture.registry.blockJobInfos.map(\.ioStatus) == [scene.status])
            #expect(await fixture.registry.blockJobInfos.map(\.paused) == [true])
            try await fixture.registry.resume(job)
        }
        await fixture.wait(for: "s null")
        let words = scene.code == .io ? "Input/output error" : "No space left on device"
        let stopped = scene.action == .stop ? ["s paused", "s running"] : []
        let end = scene.action == .report ? ["s aborting", "s BLOCK_JOB_COMPLETED \(words)"] : ["s waiting", "s pending", "s BLOCK_JOB_COMPLETED"]
        #expect(
            fixture.told == ["s created", "s running", "s BLOCK_JOB_ERROR \(scene.action.rawValue)"] + stopped + end + ["s concluded", "s null"])
        try await fixture.stop()
    }

    /// A copy between two nodes that holds a lock which a guest's request waits for: the deadlock that entering one gate after the other makes.
    @Test("drains of one node, the other or both end while a job copies from one to the other and guests wait for the copy", arguments: 0..<20)
    func drains(seed: Int) async throws {
        let fixture = try JobFixture(DriverRegistry([NullDriver.self]))
        let graph = fixture.graph
        for name in ["source", "target"] { _ = try await graph.add(BlockdevOptions(.nullCo(BlockdevOptionsNull(size: 1 << 20)), nodeName: name)) }
        let guest = try await graph.makeBackend(named: "a guest", on: "source", PermissionGrant(used: [.consistentRead, .write], shared: .all))
        let ranges = AsyncMutex()
        let rounds = Tally()

        final class Copier: JobDriver {
            static var type: JobType { .mirror }
            let (source, target, ranges): (BlockBackend, BlockBackend, AsyncMutex)
            let graph: BlockGraph
            init(_ source: BlockBackend, _ target: BlockBackend, _ ranges: AsyncMutex, _ graph: BlockGraph) {
                (self.source, self.target, self.ranges) = (source, target, ranges)
                self.graph = graph
            }
            func run(_ job: Job) async throws(BlockError) {
                let buffer = IOBuffer(byteCount: 4096)
                defer { withExtendedLifetime(buffer) {} }
                while true {
                    try await job.pausePoint()
                    try await BlockBackend.withEntered([source, target]) { () async throws(BlockError) in
                        try await ranges.withLock { () async throws(BlockError) in
                            try await source.root.read(buffer.vector, at: GuestOffset(0))
                            await Task.yield()
                            try await target.root.write(buffer.vector, at: GuestOffset(0))
                        }
                    }
                    job.progress.addUnforeseen(1)
                }
            }
            func clean(_ job: Job) async {
                await graph.release(source)
                await graph.release(target)
            }
        }
        var settings = JobSettings(id: "m", type: .mirror)
        let thread = try IOContext.startThread(name: "job thread")
        settings.context = thread
        let job = try await fixture.registry.start(settings) { (job) async throws(BlockError) -> any JobDriver in
            let source = try await graph.makeBackend(named: job.holderName, on: "source", PermissionGrant(used: .consistentRead, shared: .all))
            let target = try await graph.makeBackend(named: job.holderName, on: "target", PermissionGrant(used: .write, shared: .all))
            return Copier(source, target, ranges, graph)
        }
        let isEnding = Tally()
        await withTaskGroup(of: Void.self) { group in
            group.addTask {
                let buffer = IOBuffer(byteCount: 512)
                defer { withExtendedLifetime(buffer) {} }
                while isEnding.count == 0 {
                    // A request of the guest that has entered and waits for the copy.
                    do {
                        try await BlockBackend.withEntered([guest]) { await ranges.withLock { await Task.yield() } }
                    } catch { Issue.record("\(error)") }
                    rounds.add()
                }
            }
            var random = SeededGenerator(seed: UInt64(seed))
            for _ in 0..<50 {
                let names: Set<String>? = [["source"], ["target"], ["source", "target"], nil][Int.random(in: 0..<4, using: &random)]
                let drain = await graph.beginDrain(of: names)
                if names?.contains("source") ?? true {
                    let (before, copies) = (rounds.count, job.progress.current)
                    for _ in 0..<3 { await Task.yield() }
                    #expect(rounds.count <= before + 1)
                    #expect(job.progress.current <= copies + 1)
                }
                await graph.end(drain)
            }
            isEnding.add()
            await group.waitForAll()
        }
        await graph.release(guest)
        try await fixture.registry.cancel(job, isForced: true)
        await job.waitUntilConcluded()
        try await fixture.stop()
        thread.stop()
        thread.join()
    }

    @Test("the end of everything cancels jobs one after the other, the newest first")
    func cancelAll() async throws {
        let fixture = try JobFixture()
        let a = try await fixture.start("a", Puppet(), autoDismiss: false)
        _ = try await fixture.start("b", Puppet(.becomeReady, endsSoftlyWhenReady: true))
        _ = try await fixture.start("c", Puppet(.succeed), autoFinalize: false)
        _ = try await fixture.start("d", Puppet(.succeed), autoDismiss: false)
        await fixture.wait(for: "b ready")
        await fixture.wait(for: "c pending")
        await fixture.wait(for: "d concluded")
        try await fixture.registry.pause(a)
        await fixture.wait(for: "a paused")
        await fixture.registry.cancelAll()
        #expect(await fixture.registry.infos.isEmpty)
        let ends = fixture.told.filter { $0.hasSuffix("CANCELLED") || $0.hasSuffix("null") }
        #expect(ends == ["d null", "c BLOCK_JOB_CANCELLED", "c null", "b BLOCK_JOB_CANCELLED", "b null", "a BLOCK_JOB_CANCELLED", "a null"])
        try await fixture.stop()
    }
}
