import IOCore
import JobCore
import StorageSchema
import StrataBase
import StrataTesting
import Testing

@Suite("jobs that belong together")
struct JobTransactionTests {
    @Test("all wait for the last one, and then put their work into force together")
    func together() async throws {
        let fixture = try JobFixture()
        let transaction = JobTransaction()
        let works = [Puppet(), Puppet(), Puppet()]
        var jobs: [Job] = []
        for (name, work) in zip(["a", "b", "c"], works) { jobs.append(try await fixture.start(name, work, in: transaction)) }
        for job in jobs { await fixture.registry.start(job) }
        works[1].set(.succeed, jobs[1])
        works[0].set(.succeed, jobs[0])
        await fixture.wait(for: "a waiting")
        await fixture.wait(for: "b waiting")
        #expect(!fixture.told.contains { $0.hasSuffix("pending") })
        works[2].set(.succeed, jobs[2])
        for name in ["a", "b", "c"] { await fixture.wait(for: "\(name) null") }
        let told = fixture.told
        let lastPending = try #require(told.lastIndex { $0.hasSuffix(" pending") })
        let firstEnd = try #require(told.firstIndex { $0.hasSuffix("BLOCK_JOB_COMPLETED") })
        #expect(lastPending < firstEnd)
        for work in works { #expect(work.called.suffix(3) == ["prepare", "commit", "clean"]) }
        try await fixture.stop()
    }

    @Test("a job that is being made when all are ended is given up, and the end waits for that")
    func madeAtTheEnd() async throws {
        let fixture = try JobFixture()
        let work = Puppet()
        let isMaking = AsyncCondition(false), mayGoOn = AsyncCondition(false), hasEnded = AsyncCondition(false)
        let making = Task { () async -> BlockError? in
            do throws(BlockError) {
                _ = try await fixture.registry.start(JobSettings(id: "late", type: .backup)) { _ in
                    isMaking.update { $0 = true }
                    await mayGoOn.wait { $0 ? () : nil }
                    return work
                }
                return nil
            } catch { return error }
        }
        await isMaking.wait { $0 ? () : nil }
        let ending = Task {
            await fixture.registry.cancelAll()
            hasEnded.update { $0 = true }
        }
        // A command to the registry that comes behind the end has its turn only when the end has begun to wait.
        while await !fixture.registry.isEnding {}
        #expect(!hasEnded.withLock { $0 })
        mayGoOn.update { $0 = true }
        #expect(await making.value?.message == "The storage daemon is shutting down")
        await ending.value
        #expect(work.called == ["abort", "clean"])
        #expect(await fixture.registry.infos.isEmpty)
        let refusal = await #expect(throws: BlockError.self) { try await fixture.start("later", Puppet()) }
        #expect(refusal?.code == .cancelled)
        try await fixture.stop()
    }

    @Test("one that fails takes the others with it, also those that were done, held or not yet begun to finalize", arguments: [false, true])
    func failure(inPrepare: Bool) async throws {
        let fixture = try JobFixture()
        let transaction = JobTransaction()
        let works = [Puppet(.succeed), Puppet(inPrepare ? .succeed : .work), Puppet(inPrepare ? .succeed : .work, prepareFails: inPrepare)]
        var jobs: [Job] = []
        for (name, work) in zip(["a", "b", "c"], works) { jobs.append(try await fixture.start(name, work, in: transaction, autoDismiss: false)) }
        for job in jobs { await fixture.registry.start(job) }
        if !inPrepare {
            await fixture.wait(for: "a waiting")
            try await fixture.registry.pause(jobs[1])
            await fixture.wait(for: "b paused")
            works[2].set(.fail, jobs[2])
        }
        for job in jobs { await job.waitUntilConcluded() }
        let told = fixture.told
        #expect(told.contains("a BLOCK_JOB_CANCELLED"))
        #expect(told.contains("b BLOCK_JOB_CANCELLED"))
        #expect(told.contains("c BLOCK_JOB_COMPLETED \(inPrepare ? "the puppet cannot prepare" : "the puppet was told to fail")"))
        for work in works {
            #expect(work.called.suffix(2) == ["abort", "clean"])
            #expect(!work.called.contains("commit"))
        }
        #expect(await fixture.registry.infos.map { $0.error != nil } == [true, true, true])
        try await fixture.stop()
    }

    @Test("one job that is finalized by hand holds back all, and finalizing any of them is enough")
    func byHand() async throws {
        let fixture = try JobFixture()
        let transaction = JobTransaction()
        let a = try await fixture.start("a", Puppet(.succeed), in: transaction)
        let b = try await fixture.start("b", Puppet(.succeed), in: transaction, autoFinalize: false)
        await fixture.registry.start(a)
        await fixture.registry.start(b)
        await fixture.wait(for: "b BLOCK_JOB_PENDING")
        #expect(a.status == .pending)
        try await fixture.registry.finalize(a)
        #expect(fixture.told.contains("b null") && fixture.told.contains("a null"))
        try await fixture.stop()
    }

    @Test("jobs that were created for a transaction that does not come about leave nothing behind")
    func discarded() async throws {
        let fixture = try JobFixture()
        let work = Puppet()
        let job = try await fixture.start("a", work, in: JobTransaction())
        await fixture.registry.discard(job)
        #expect(work.called == ["abort", "clean"])
        #expect(fixture.told == ["a created", "a null"])
        #expect(await fixture.registry.infos.isEmpty)
        try await fixture.stop()
    }

    /// Whatever is asked at whatever moment: every job is told of in an order that the table allows, ends, and is undone or in force as a whole.
    @Test("random verbs at random moments leave transactions whole", arguments: 0..<100)
    func random(seed: Int) async throws {
        var random = SeededGenerator(seed: UInt64(seed))
        let fixture = try JobFixture()
        let transaction = JobTransaction()
        let count = Int.random(in: 1...3, using: &random)
        var members: [(job: Job, work: Puppet)] = []
        for index in 0..<count {
            let work = Puppet(prepareFails: Int.random(in: 0..<8, using: &random) == 0, endsSoftlyWhenReady: Bool.random(using: &random))
            let job = try await fixture.start(
                "j\(index)", work, in: transaction, autoFinalize: Bool.random(using: &random), autoDismiss: false)
            members.append((job, work))
        }
        for member in members { await fixture.registry.start(member.job) }
        func isOver(_ job: Job) -> Bool { [.concluded, .null].contains(job.status) }
        var steps = 0
        while members.contains(where: { !isOver($0.job) }) {
            let (job, work) = members[Int.random(in: 0..<count, using: &random)]
            steps += 1
            // In the end everybody is let go.
            if steps > 40 {
                for (job, work) in members {
                    do { try await fixture.registry.resume(job) } catch {}
                    work.set(.succeed, job)
                    do { try await fixture.registry.finalize(job) } catch {}
                }
                await Task.yield()
                continue
            }
            // Refusals are as good as anything here.
            do {
                switch Int.random(in: 0..<10, using: &random) {
                case 0: try await fixture.registry.pause(job)
                case 1, 2: try await fixture.registry.resume(job)
                case 3: work.set(.becomeReady, job)
                case 4: try await fixture.registry.complete(job)
                case 5: try await fixture.registry.finalize(job)
                case 6: if steps > 20 { try await fixture.registry.cancel(job, isForced: Bool.random(using: &random)) }
                case 7: if steps > 10 { work.set(Bool.random(using: &random) ? .succeed : .fail, job) }
                case 8: try await fixture.registry.setSpeed(Int.random(in: 0...9, using: &random), of: job)
                default: await Task.yield()
                }
            } catch {}
        }
        let committed = members.filter { $0.work.called.contains("commit") }.count
        #expect(committed == 0 || committed == count, "seed \(seed)")
        for (job, work) in members {
            #expect(work.called.last == "clean")
            #expect(work.called.filter { $0 == "clean" }.count == 1)
            #expect((job.state.failure == nil) == (committed > 0))
            // The statuses that were told of, in order, each one allowed after the one before.
            let statuses = fixture.told.compactMap { line -> JobStatus? in
                let parts = line.split(separator: " ")
                return parts[0] == job.id ? JobStatus(rawValue: String(parts[1])) : nil
            }
            for (one, next) in zip(statuses, statuses.dropFirst()) { #expect(JobStateMachine.successors(of: one).contains(next), "seed \(seed)") }
        }
        try await fixture.stop()
    }
}
