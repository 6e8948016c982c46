import IOCore
import JobCore
import StorageSchema
import StrataBase
import Testing

@Suite("the life of a job")
struct JobStateTests {
    /// The table of the documentation, written as a matrix: a column for each status in the schema's order.
    private static let order: [JobStatus] = [.undefined, .created, .running, .paused, .ready, .standby, .waiting, .pending, .aborting, .concluded, .null]
    private static let transitions: [(JobStatus, String)] = [
        (.undefined, ".x........."),
        (.created, "..x.....x.x"),
        (.running, "...xx.x.x.."),
        (.paused, "..x........"),
        (.ready, ".....xx.x.."),
        (.standby, "....x......"),
        (.waiting, ".......xx.."),
        (.pending, "........xx."),
        (.aborting, ".........x."),
        (.concluded, "..........x"),
        (.null, "..........."),
    ]
    private static let verbs: [(JobVerb, String)] = [
        (.cancel, ".xxxxxxx..."),
        (.pause, ".xxxxx....."),
        (.resume, ".xxxxx....."),
        (.setSpeed, ".xxxxx....."),
        (.complete, "....xx....."),
        (.finalize, ".......x..."),
        (.dismiss, ".........x."),
        (.change, ".xxxxx....."),
    ]

    @Test("every transition and every verb is allowed exactly where the table says")
    func tables() {
        for (status, row) in Self.transitions {
            let allowed = JobStateMachine.successors(of: status)
            #expect(Self.order.map { allowed.contains($0) ? "x" : "." }.joined() == row, "after \(status)")
        }
        #expect(Self.verbs.map(\.0.rawValue).sorted() == JobVerb.allCases.map(\.rawValue).sorted())
        for (verb, row) in Self.verbs {
            #expect(Self.order.map { JobStateMachine.accepts(verb, in: $0) ? "x" : "." }.joined() == row, "\(verb)")
        }
    }

    /// A job in a status, as long as the test needs it there.
    private static func bring(_ fixture: JobFixture, to status: JobStatus) async throws -> (Job, Puppet) {
        let work = Puppet(holdsAbort: status == .aborting)
        let transaction = JobTransaction()
        let other = Puppet()
        let job = try await fixture.start("j", work, in: transaction, autoFinalize: false, autoDismiss: false)
        if status == .created { return (job, work) }
        if status == .waiting {
            let second = try await fixture.start("k", other, in: transaction)
            await fixture.registry.start(job)
            await fixture.registry.start(second)
            work.set(.succeed, job)
            await fixture.wait(for: "j waiting")
            return (job, work)
        }
        await fixture.registry.start(job)
        await work.wait(for: "round")
        switch status {
        case .paused:
            try await fixture.registry.pause(job)
            await fixture.wait(for: "j paused")
        case .ready, .standby:
            work.set(.becomeReady, job)
            await fixture.wait(for: "j ready")
            if status == .standby {
                try await fixture.registry.pause(job)
                await fixture.wait(for: "j standby")
            }
        case .pending, .concluded:
            work.set(.succeed, job)
            await fixture.wait(for: "j pending")
            if status == .concluded { try await fixture.registry.finalize(job) }
        case .aborting:
            work.set(.fail, job)
            await work.wait(for: "abort")
        default: break
        }
        #expect(job.status == status)
        return (job, work)
    }

    @Test("a job in each status takes and refuses each verb as the table says, in QEMU's words",
        arguments: [JobStatus.created, .running, .paused, .ready, .standby, .waiting, .pending, .aborting, .concluded])
    func everyVerb(status: JobStatus) async throws {
        for verb in JobVerb.allCases {
            let fixture = try JobFixture()
            let (job, work) = try await Self.bring(fixture, to: status)
            var refusal: String?
            do throws(BlockError) {
                switch verb {
                case .cancel: try await fixture.registry.cancel(job, isForced: true)
                case .pause: try await fixture.registry.pause(job)
                case .resume: try await fixture.registry.resume(job)
                case .setSpeed: try await fixture.registry.setSpeed(1, of: job)
                case .complete: try await fixture.registry.complete(job)
                case .finalize: try await fixture.registry.finalize(job)
                case .dismiss: try await fixture.registry.dismiss(job)
                case .change: try await fixture.registry.change(BlockJobChangeOptions(.backup, id: "j"), of: job)
                }
            } catch { refusal = error.description }
            let isHeld = status == .paused || status == .standby
            let expected: String? =
                switch verb {
                case .resume where !isHeld: "Can't resume a job that was not paused"
                case _ where !JobStateMachine.accepts(verb, in: status):
                    "Job 'j' in state '\(status.rawValue)' cannot accept command verb '\(verb.rawValue)'"
                case .pause where isHeld: "Job is already paused"
                case .change: "Job type does not support change"
                default: nil
                }
            #expect(refusal == expected, "\(verb) in \(status)")
            work.abortGate.update { $0 = true }
            if job.status == .created { await fixture.registry.start(job) }
            try await fixture.stop()
        }
    }

    @Test("a success is told of in QEMU's order")
    func success() async throws {
        let fixture = try JobFixture()
        let work = Puppet()
        let job = try await fixture.start("j", work)
        work.set(.succeed, job)
        await fixture.wait(for: "j null")
        #expect(fixture.told == ["j created", "j running", "j waiting", "j pending", "j BLOCK_JOB_COMPLETED", "j concluded", "j null"])
        #expect(work.called.suffix(3) == ["prepare", "commit", "clean"])
        #expect(await fixture.registry.infos.isEmpty)
        try await fixture.stop()
    }

    @Test("finalizing and dismissing by hand")
    func byHand() async throws {
        let fixture = try JobFixture()
        let work = Puppet(.succeed)
        let job = try await fixture.start("j", work, autoFinalize: false, autoDismiss: false)
        await fixture.wait(for: "j BLOCK_JOB_PENDING")
        #expect(!work.called.contains("prepare"))
        try await fixture.registry.finalize(job)
        #expect(job.status == .concluded)
        #expect(await fixture.registry.infos.map(\.status) == [.concluded])
        try await fixture.registry.dismiss(job)
        #expect(
            fixture.told == [
                "j created", "j running", "j waiting", "j pending", "j BLOCK_JOB_PENDING", "j BLOCK_JOB_COMPLETED", "j concluded", "j null",
            ])
        try await fixture.stop()
    }

    @Test("a job that makes an image sends no events of block jobs and is not listed among them")
    func plainJob() async throws {
        let fixture = try JobFixture()
        let work = Puppet()
        let job = try await fixture.start("j", work, autoDismiss: false, isBlockJob: false)
        #expect(await fixture.registry.blockJobInfos.isEmpty)
        #expect(await fixture.registry.infos.map(\.id) == ["j"])
        work.set(.fail, job)
        await fixture.wait(for: "j concluded")
        #expect(fixture.told == ["j created", "j running", "j aborting", "j concluded"])
        #expect(await fixture.registry.infos.first?.error == "the puppet was told to fail")
        try await fixture.stop()
    }

    @Test("a failure, a cancellation and a failing last step")
    func failures() async throws {
        for (work, end) in [(Puppet(.fail), "BLOCK_JOB_COMPLETED the puppet was told to fail"), (Puppet(.succeed, prepareFails: true), "BLOCK_JOB_COMPLETED the puppet cannot prepare")] {
            let fixture = try JobFixture()
            _ = try await fixture.start("j", work)
            await fixture.wait(for: "j null")
            let middle = work.prepareFails ? ["j waiting", "j pending"] : []
            #expect(fixture.told == ["j created", "j running"] + middle + ["j aborting", "j \(end)", "j concluded", "j null"])
            #expect(work.called.suffix(2) == ["abort", "clean"])
            try await fixture.stop()
        }
        let fixture = try JobFixture()
        let job = try await fixture.start("j", Puppet())
        try await fixture.registry.pause(job)
        await fixture.wait(for: "j paused")
        let soft = await #expect(throws: BlockError.self) { try await fixture.registry.cancel(job, isForced: false) }
        #expect(soft?.description == "The block job for device 'j' is currently paused")
        try await fixture.registry.cancel(job, isForced: true)
        await fixture.wait(for: "j null")
        #expect(
            fixture.told == ["j created", "j running", "j paused", "j running", "j aborting", "j BLOCK_JOB_CANCELLED", "j concluded", "j null"])
        try await fixture.stop()
    }

    @Test("a ready job that is cancelled softly ends with success when its driver says so, and by force it fails")
    func softCancellation() async throws {
        for isForced in [false, true] {
            let fixture = try JobFixture()
            let work = Puppet(.becomeReady, endsSoftlyWhenReady: true)
            let job = try await fixture.start("j", work)
            await fixture.wait(for: "j BLOCK_JOB_READY")
            try await fixture.registry.cancel(job, isForced: isForced)
            await fixture.wait(for: "j null")
            #expect(fixture.told.contains("j BLOCK_JOB_COMPLETED") == !isForced)
            #expect(fixture.told.contains("j BLOCK_JOB_CANCELLED") == isForced)
            try await fixture.stop()
        }
    }

    @Test("ids are checked, and those in use are refused")
    func ids() async throws {
        let fixture = try JobFixture()
        _ = try await fixture.start("j", Puppet())
        for (id, words) in [("", "Invalid job ID ''"), ("1x", "Invalid job ID '1x'"), ("j", "Job ID 'j' already in use")] {
            let refusal = await #expect(throws: BlockError.self) { _ = try await fixture.start(id, Puppet()) }
            #expect(refusal?.description == words)
        }
        let refusal = await #expect(throws: BlockError.self) { _ = try await fixture.start("k", Puppet(), speed: -1) }
        #expect(refusal?.description == "Parameter 'speed' expects a non-negative value")
        try await fixture.stop()
    }
}
