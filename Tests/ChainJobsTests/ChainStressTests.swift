import BlockGraph
import ChainJobs
import DriverTesting
import Foundation
import IOCore
import JobCore
import StorageSchema
import StrataBase
import Testing

/// Jobs while guests on three I/O threads write to the disk: what guests see is always what they wrote, and afterwards every image has what it should.
@Suite("jobs on chains under load")
struct ChainStressTests {
    enum Kind: String, CaseIterable, Sendable { case stream, streamMiddle, commit, activeCommit, mirror, activeMirror, mirrorTop }

    /// `STRATA_JOB_SEEDS=1000` runs more.
    static let seeds = 1...(Int(ProcessInfo.processInfo.environment["STRATA_JOB_SEEDS"] ?? "") ?? 6)

    @Test("guests notice nothing, whatever becomes of the job", arguments: Kind.allCases, seeds)
    func underLoad(kind: Kind, seed: Int) async throws {
        try await ChainBench.run { bench in try await Self.play(kind, UInt64(seed) &* 1000 &+ UInt64(kind.rawValue.count), bench) }
    }

    private static func play(_ kind: Kind, _ seed: UInt64, _ bench: ChainBench) async throws {
        var random = SeededNumbers(seed: seed)
        let names = ["base", "mid", "top"]
        var contents = [UInt8](repeating: 0, count: bench.size)
        for (index, name) in names.enumerated() {
            try await bench.openImage(name, over: index > 0 ? names[index - 1] : nil, seed: seed &+ UInt64(index))
            try await bench.fill(name, &contents, seed: seed &* 31 &+ UInt64(index))
        }
        try await bench.openImage("target", over: nil, seed: seed &+ 9)
        let guestBackend = try await bench.graph.makeBackend(
            named: "guests", on: "top", PermissionGrant(used: [.consistentRead, .write], shared: [.consistentRead, .write, .writeUnchanged]))
        let guests = Guests(guestBackend, contents: contents, count: 3, seed: seed, pulse: bench.pulse)
        guests.start(on: Array(bench.contexts[1...]), seed: seed)

        var settings = JobSettings(id: "j", type: kind.rawValue.hasPrefix("stream") ? .stream : kind.rawValue.lowercased().contains("commit") ? .commit : .mirror)
        settings.context = bench.contexts[Int.random(in: 0...3, using: &random)]
        settings.speed = [0, 0, 20 << 20].randomElement(using: &random) ?? 0
        settings.dismissesAutomatically = false
        settings.finalizesAutomatically = Int.random(in: 0..<3, using: &random) > 0
        let graph = bench.graph
        // Requests of the job that fail make it stop; it is resumed below.
        let faulty = ["commit": "base", "activeCommit": "base", "mirror": "target", "activeMirror": "target"][kind.rawValue]
        if let faulty, Bool.random(using: &random) {
            let code: BlockError.Code = Bool.random(using: &random) ? .io : .noSpace
            bench.disk(faulty)?.fail(SimulatedDisk.Fault([.write], code, skipped: Int.random(in: 0...60, using: &random), count: Int.random(in: 1...3, using: &random)))
        }
        let job: Job
        switch kind {
        case .stream, .streamMiddle:
            var options = StreamJob.Options(device: kind == .stream ? "top" : "mid")
            if kind == .stream, Bool.random(using: &random) { (options.baseNode, options.backingFile) = ("base", "base") }
            let final = options
            job = try await bench.jobs.start(settings) { job async throws(BlockError) in try await StreamJob.make(final, job, in: graph) }
        case .commit:
            var options = CommitJob.Options(top: "mid", base: "base")
            (options.backingFile, options.onError) = ("base", .stop)
            let final = options
            job = try await bench.jobs.start(settings) { job async throws(BlockError) in try await CommitJob.make(final, job, in: graph) }
        case .activeCommit, .mirror, .activeMirror, .mirrorTop:
            var options = MirrorJob.Options(source: "top", target: kind == .activeCommit ? "base" : "target")
            options.isCommit = kind == .activeCommit
            options.sync = kind == .activeCommit ? .top : .full
            options.isActive = kind == .activeMirror
            options.granularity = [4096, 65536].randomElement(using: &random)
            (options.onTargetError, options.onSourceError) = (.stop, .stop)
            let final = options
            job = try await bench.jobs.start(settings) { job async throws(BlockError) in try await MirrorJob.make(final, job, in: graph) }
        }

        // Users do what they do; refusals are as good as anything.
        let cancelsAt = Int.random(in: 0..<3, using: &random) == 0 ? Int.random(in: 0..<40, using: &random) : Int.max
        var hasSwitched = false
        var step = 0
        var drains: [ActiveDrain] = []
        while ![.concluded, .null].contains(job.status) {
            step += 1
            do throws(BlockError) {
                switch Int.random(in: 0..<8, using: &random) {
                case 0: if step < 60 { try await bench.jobs.pause(job) }
                case 1, 2: try await bench.jobs.resume(job)
                case 3: try await bench.jobs.setSpeed([0, 50 << 20].randomElement(using: &random) ?? 0, of: job)
                case 4: drains.append(await graph.beginDrain(of: [["top"], ["base", "target"], ["mid"]].randomElement(using: &random).map { Set($0) }))
                case 5:
                    if kind == .mirror, step > 10, !hasSwitched {
                        try await bench.jobs.change(BlockJobChangeOptions(.mirror(BlockJobChangeOptionsMirror(copyMode: .writeBlocking)), id: "j"), of: job)
                        hasSwitched = true
                    }
                default: break
                }
                if step > 30 { try? await bench.jobs.complete(job) }
                if step >= cancelsAt { try await bench.jobs.cancel(job, isForced: Bool.random(using: &random)) }
                if job.status == .pending { try await bench.jobs.finalize(job) }
            } catch {}
            for drain in drains { await graph.end(drain) }
            drains = []
            if step > 60 { do { try await bench.jobs.resume(job) } catch {} }
            // Guests of a mirror that waits to be finalized wait as well; that it has come so far is the last that happens.
            if job.status != .pending { await bench.waitForPulses(1) }
        }
        // A job that was cancelled may have left some; closing the image is not what they are for.
        if let faulty { bench.disk(faulty)?.clearFaults() }
        await bench.waitForPulses(30)
        let (expected, complaints) = await guests.stop()
        #expect(complaints.isEmpty, "\(kind) seed \(seed): \(complaints.prefix(3))")
        #expect(firstDifference(try await guestBackend.readArray(at: 0, bench.size), expected) == nil, "\(kind) seed \(seed) after \(job.state)")
        // Where the guests are now is where the job should have brought them.
        let isSuccess = job.state.failure == nil
        let place = guestBackend.node.name
        if let failure = job.state.failure { #expect(failure.code == .cancelled, "\(kind) seed \(seed): \(failure)") }
        switch kind {
        case .stream, .streamMiddle, .commit: #expect(place == "top")
        case .activeCommit: #expect(place == "top" || (isSuccess && place == "base"))
        case .mirror, .activeMirror, .mirrorTop: #expect(place == "top" || (isSuccess && place == "target"))
        }
        if !isSuccess { #expect(place == "top") }
        let nodes = await graph.allNodes
        #expect(!nodes.contains { ["mirror_top", "commit_top", "copy-on-read"].contains($0.formatName) }, "\(kind) seed \(seed): a filter is left")
        #expect(await graph.snapshot.nodes.values.allSatisfy { $0.blockers.isEmpty && $0.node.bitmaps.all.isEmpty })
        if isSuccess, kind == .stream || kind == .streamMiddle {
            let node = try #require(await graph.node(named: kind == .stream ? "top" : "mid"))
            #expect(node.backingChild == nil || node.backingChild?.node.name == "base")
        }
        if isSuccess, kind == .commit { #expect(await graph.node(named: "top")?.backingChild?.node.name == "base") }
        await graph.release(guestBackend)
        for disk in names + ["target"] { #expect(bench.disk(disk)?.violations == []) }
    }
}
