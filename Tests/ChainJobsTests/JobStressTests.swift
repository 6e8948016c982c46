import BackupJobs
import BlockGraph
import ChainJobs
import DriverTesting
import Foundation
import IOCore
import JobCore
import StorageSchema
import StrataBase
import Testing

/// Everything at once, at random: jobs, what users ask of them, changes of the graph and failing requests, while guests on three I/O threads write.
/// Whatever is refused or fails, the guests' disk is what they wrote, a backup is the disk of its moment, and nothing is left behind.
@Suite("random jobs in a changing graph")
struct JobStressTests {
    private static func number(_ name: String) -> Int? { ProcessInfo.processInfo.environment[name].flatMap { Int($0) } }
    private static let batches = 20
    static let replays = number("STRATA_JOB_SEED") != nil

    /// `STRATA_JOB_SEEDS=100000` runs more, `STRATA_FIRST_JOB_SEED=1000` others; `STRATA_JOB_SEED=17` runs that one.
    @Test("guests, backups and images are right after any sequence of jobs, verbs, graph edits and errors", arguments: 0..<batches)
    func everything(batch: Int) async throws {
        if let seed = Self.number("STRATA_JOB_SEED") {
            if batch == 0 { try await Self.play(seed) }
            return
        }
        let (first, count) = (Self.number("STRATA_FIRST_JOB_SEED") ?? 0, Self.number("STRATA_JOB_SEEDS") ?? 1000)
        for seed in stride(from: first + batch, to: first + count, by: Self.batches) { try await Self.play(seed) }
    }

    /// A snapshot that came between a commit's look at the overlay and its write there.
    @Test("seeds that have found something once", arguments: [1078, 1279, 1342, 1773, 1781, 1873, 2426, 2943, 3660])
    func again(seed: Int) async throws {
        if !Self.replays { try await Self.play(seed) }
    }

    private static func play(_ seed: Int) async throws {
        try await ChainBench.run(size: StressRun.size) { bench in
            let run = try await StressRun(bench, seed: seed)
            do {
                for _ in 0..<StressRun.steps { try await run.step() }
                try await run.finish()
            } catch { Issue.record("STRATA_JOB_SEED=\(seed): \(error)") }
            for complaint in run.complaints { Issue.record("STRATA_JOB_SEED=\(seed): \(complaint)") }
        }
    }
}

/// One sequence. On the bench's control thread only.
private final class StressRun: @unchecked Sendable {  // unchecked: see above
    static let size = 256 << 10
    static let steps = 24
    private static let faults: Set<BlockError.Code> = [.io, .noSpace]

    private struct Started {
        let job: Job
        /// What the target of a backup has to be.
        var expected: [UInt8]?
    }

    private let bench: ChainBench
    private let guests: Guests
    private let backend: BlockBackend
    private var random: SeededNumbers
    private var started: [Started] = []
    private var overlays = ["over0", "over1"]
    private var filters: [String] = []
    /// Nodes that were made writable or moved away from what they were, and how they were.
    private var reopened: [String] = []
    private var hasReopened = false
    private var count = 0
    private var targetIsFree = true
    private(set) var complaints: [String] = []

    init(_ bench: ChainBench, seed: Int) async throws {
        self.bench = bench
        let seed = UInt64(seed) &* 0x9e37_79b9 &+ 1
        random = SeededNumbers(seed: seed)
        var contents = [UInt8](repeating: 0, count: Self.size)
        for (index, name) in ["base", "mid", "top"].enumerated() {
            try await bench.openImage(name, over: index > 0 ? ["base", "mid"][index - 1] : nil, seed: seed &+ UInt64(index))
            try await bench.fill(name, &contents, seed: seed &* 31 &+ UInt64(index))
        }
        for name in ["target", "over0", "over1"] { try await bench.openImage(name, over: nil, seed: seed &+ 7) }
        backend = try await bench.graph.makeBackend(
            named: "guests", on: "top", PermissionGrant(used: [.consistentRead, .write], shared: [.consistentRead, .write, .writeUnchanged]))
        guests = Guests(backend, contents: contents, count: 3, seed: seed, pulse: bench.pulse, orderedFailures: Self.faults)
        guests.start(on: Array(bench.contexts[1...]), seed: seed)
    }

    private func chance(_ one: Int) -> Bool { Int.random(in: 0..<one, using: &random) == 0 }
    private func pick<Element>(_ from: [Element]) -> Element? { from.randomElement(using: &random) }
    /// The node that the guests use.
    private var disk: String { backend.node.name }
    private var running: [Job] { started.map(\.job).filter { ![.concluded, .null].contains($0.status) } }

    // MARK: Steps

    /// Who replays one seed sees what is done.
    private func tell(_ words: @autoclosure () -> String) {
        if JobStressTests.replays { print("\(words()) with \(started.map { "\($0.job.id) \($0.job.type) \($0.job.status)" }) on '\(disk)'") }
    }

    func step() async throws {
        let action = Int.random(in: 0..<20, using: &random)
        tell("action \(action)")
        do {
            switch action {
            case 0...4: try await startJob()
            case 5...9: try await verb()
            case 10: try await takeSnapshot()
            case 11: try await insertFilter()
            case 12: try await removeFilter()
            case 13: try await reopen()
            case 14: try await move()
            case 15: try await drain()
            case 16, 17: orderFault()
            default: break
            }
        } catch let refusal as BlockError {
            // As good as anything.
            tell("refused: \(refusal)")
        }
        try await lookAtEnds()
        await bench.waitForPulses(Int.random(in: 1...6, using: &random))
    }

    private func startJob() async throws {
        guard running.count < 3 else { return }
        count += 1
        let type: JobType = pick([.stream, .commit, .mirror, .mirror, .backup, .backup]) ?? .stream
        var settings = JobSettings(id: "j\(count)", type: type)
        settings.context = pick(bench.contexts)
        settings.speed = pick([0, 0, 0, 4 << 20]) ?? 0
        settings.dismissesAutomatically = false
        // A mirror that waits to be finalized keeps its guests waiting.
        settings.finalizesAutomatically = type == .mirror || !chance(4)
        let policy: BlockdevOnError = pick([.stop, .stop, .report, .enospc, .ignore]) ?? .stop
        let graph = bench.graph
        switch type {
        case .stream:
            var options = StreamJob.Options(device: pick([disk, "mid", "top"]) ?? disk)
            if chance(2) { options.baseNode = pick(["base", "mid"]) }
            options.onError = policy == .ignore ? .stop : policy
            try await start(settings) { [options] job async throws(BlockError) in try await StreamJob.make(options, job, in: graph) }
        case .commit:
            let arguments = BlockCommitArguments(device: disk, baseNode: pick(["base", "mid"]), topNode: pick([nil, nil, "mid", "top"]) ?? nil)
            let range = try await graph.change { change throws(BlockError) in try CommitRange(arguments, change) }
            if range.isActive {
                var options = MirrorJob.Options(source: range.top, target: range.base)
                (options.isCommit, options.sync) = (true, .top)
                (options.onSourceError, options.onTargetError) = (policy, policy)
                settings.finalizesAutomatically = true
                try await start(settings) { [options] job async throws(BlockError) in try await MirrorJob.make(options, job, in: graph) }
            } else {
                var options = CommitJob.Options(top: range.top, base: range.base)
                options.onError = policy == .ignore ? .stop : policy
                try await start(settings) { [options] job async throws(BlockError) in try await CommitJob.make(options, job, in: graph) }
            }
        case .mirror:
            guard targetIsFree else { return }
            var options = MirrorJob.Options(source: disk, target: "target")
            options.isActive = chance(2)
            options.granularity = pick([4096, 16384])
            options.bufferSize = pick([nil, 1, 65536]) ?? nil
            (options.onSourceError, options.onTargetError) = (policy, policy)
            try await start(settings) { [options] job async throws(BlockError) in try await MirrorJob.make(options, job, in: graph) }
        default:
            guard targetIsFree else { return }
            var options = BackupOptions(source: disk, target: "target", sync: .full)
            options.workers = Int.random(in: 1...3, using: &random)
            (options.onSourceError, options.onTargetError) = (policy == .ignore ? .stop : policy, policy == .ignore ? .stop : policy)
            try options.settle()
            let expected = await guests.hold()
            defer { guests.letGo() }
            let final = options
            try await graph.withDrained([options.source]) { () async throws(BlockError) in
                try await start(settings, expecting: expected) { job async throws(BlockError) in try await BackupJob.make(final, job, in: graph) }
            }
        }
    }

    private func start(
        _ settings: JobSettings, expecting expected: [UInt8]? = nil, _ make: @Sendable (Job) async throws(BlockError) -> any JobDriver
    ) async throws(BlockError) {
        let job = try await bench.jobs.start(settings, make: make)
        started.append(Started(job: job, expected: expected))
        if settings.type == .mirror || settings.type == .backup { targetIsFree = false }
    }

    private func verb() async throws {
        guard let job = pick(started.map(\.job)) else { return }
        switch Int.random(in: 0..<10, using: &random) {
        case 0: try await bench.jobs.pause(job)
        case 1, 2: try await bench.jobs.resume(job)
        case 3: try await bench.jobs.setSpeed(pick([0, 2 << 20]) ?? 0, of: job)
        case 4, 5: try await bench.jobs.complete(job)
        case 6: if chance(3) { try await bench.jobs.cancel(job, isForced: chance(2)) }
        case 7: try await bench.jobs.finalize(job)
        case 8: try await bench.jobs.dismiss(job)
        default: try await bench.jobs.change(BlockJobChangeOptions(.mirror(BlockJobChangeOptionsMirror(copyMode: .writeBlocking)), id: job.id), of: job)
        }
    }

    private func takeSnapshot() async throws {
        guard let overlay = overlays.last else { return }
        try await bench.graph.takeSnapshot(of: disk, overlay: overlay)
        overlays.removeLast()
    }

    private func insertFilter() async throws {
        let (name, below) = ("filter\(count)", pick([disk, "mid", "base"]) ?? disk)
        count += 1
        let options = BlockdevOptions(.copyOnRead(BlockdevOptionsCor(file: .reference(below))), nodeName: name)
        try await bench.graph.change { change async throws(BlockError) in _ = try await change.insertFilter(options, above: below, isMonitorOwned: true) }
        filters.append(name)
    }

    private func removeFilter() async throws {
        guard let name = filters.last else { return }
        try await bench.graph.change { change async throws(BlockError) in
            // As commands ask: jobs rely on their nodes.
            try change.state.checkNotBlocked(.delete, on: name)
            try change.removeFilter(name)
        }
        filters.removeLast()
    }

    /// A backing image becomes writable for a while, or what it was before.
    private func reopen() async throws {
        hasReopened = true
        if let name = reopened.popLast() {
            try await bench.graph.endWritable(name)
        } else if let name = pick(["base", "mid", "top"]), try await bench.graph.makeWritable(name) {
            reopened.append(name)
        }
    }

    private func move() async throws {
        let context = pick(bench.contexts) ?? bench.contexts[0]
        try await bench.graph.move(pick([disk, "base", "target"]) ?? disk, isForced: true) { () throws(BlockError) in context }
    }

    private func drain() async throws {
        let drain = await bench.graph.beginDrain(of: pick([nil, [disk], ["base", "target"]]) ?? nil)
        await Task.yield()
        await bench.graph.end(drain)
    }

    private func orderFault() {
        let operations: Set<SimulatedDisk.Operation> = pick([[.read], [.write], [.write]]) ?? [.write]
        let fault = SimulatedDisk.Fault(
            operations, pick(Array(Self.faults).sorted { "\($0)" < "\($1)" }) ?? .io, skipped: Int.random(in: 0...40, using: &random), count: Int.random(in: 1...2, using: &random))
        bench.disk(pick(["base", "mid", "top", "target"]) ?? "base")?.fail(fault)
    }

    // MARK: Looking

    /// Backups that have succeeded are compared; the target is free again when its job is over and nobody has moved onto it.
    private func lookAtEnds() async throws {
        for (index, one) in started.enumerated().reversed() where one.job.status == .concluded || one.job.status == .null {
            started.remove(at: index)
            let failure = one.job.state.failure
            // An image that a user makes read-only while a job is about to end makes the job fail.
            let allowed = Self.faults.union(hasReopened ? [.cancelled, .readOnly, .permissionConflict] : [.cancelled])
            if let failure, !allowed.contains(failure.code) { complaints.append("\(one.job.type) failed: \(failure)") }
            if one.job.status == .concluded { try await bench.jobs.dismiss(one.job) }
            guard [.mirror, .backup].contains(one.job.type) else { continue }
            if let expected = one.expected, failure == nil {
                var found: [UInt8] = []
                while found.isEmpty { do { found = try await bench.contents(of: "target") } catch let error as BlockError where Self.faults.contains(error.code) {} }
                if let difference = firstDifference(found, expected) { complaints.append("backup: \(difference)") }
            }
            let isInUse = await bench.graph.isInUse("target")
            targetIsFree = disk != "target" && !isInUse
        }
    }

    func finish() async throws {
        for name in ["base", "mid", "top", "target"] { bench.disk(name)?.clearFaults() }
        while !running.isEmpty {
            tell("waiting")
            for job in running {
                do { try await bench.jobs.setSpeed(0, of: job) } catch {}
                do { try await bench.jobs.resume(job) } catch {}
                do { try await bench.jobs.complete(job) } catch {}
                do { try await bench.jobs.finalize(job) } catch {}
            }
            try await lookAtEnds()
            await bench.waitForPulses(1)
        }
        try await lookAtEnds()
        await bench.waitForPulses(6)
        let (expected, said) = await guests.stop()
        complaints += said.prefix(3)
        if let difference = firstDifference(try await backend.readArray(at: 0, Self.size), expected) { complaints.append("the disk on '\(disk)': \(difference)") }
        let state = await bench.graph.snapshot
        for record in state.nodes.values {
            if ["mirror_top", "commit_top", "copy-before-write"].contains(record.node.formatName) { complaints.append("filter '\(record.node.name)' is left") }
            if !record.blockers.isEmpty { complaints.append("a blocker of '\(record.node.name)' is left") }
            if !record.node.bitmaps.all.isEmpty { complaints.append("a bitmap of '\(record.node.name)' is left") }
            if record.node.formatName == "copy-on-read", !filters.contains(record.node.name) { complaints.append("filter '\(record.node.name)' is left") }
        }
        await bench.graph.release(backend)
        for name in ["base", "mid", "top", "target", "over0", "over1"] { complaints += bench.disk(name)?.violations ?? [] }
    }
}
