import BlockFilters
import IOCore
import StorageSchema
import StrataBase
import Synchronization
import Testing

@Suite("throttling: groups in simulated time")
struct ThrottleGroupTests {
    private static func group(_ limits: ThrottleLimits, _ clock: SimulatedClock) throws -> ThrottleGroup {
        var settings = ThrottleSettings()
        settings.apply(limits)
        return try ThrottleGroup(settings, clock: clock)
    }

    /// Who was admitted when, in the order of admission.
    private final class Log: Sendable {
        private let entries = AsyncCondition<[(member: Int, time: Int64)]>([])
        func append(_ member: Int, _ time: Int64) { entries.update { $0.append((member, time)) } }
        var members: [Int] { entries.withLock { $0.map(\.member) } }
        var times: [Int64] { entries.withLock { $0.map(\.time) } }
        func wait(for count: Int) async { await entries.wait { $0.count >= count ? () : nil } }
    }

    /// Starts requests of a member that each note when they were admitted; returns when all of them stand in line or have passed.
    private static func send(_ count: Int, of member: Int, _ group: ThrottleGroup, _ clock: SimulatedClock, _ log: Log, in tasks: inout TaskGroup<Void>) async {
        for _ in 0..<count {
            let arrived = AsyncCondition(false)
            tasks.addTask {
                arrived.update { $0 = true }
                await group.admit(512, .write, member: member)
                log.append(member, clock.now)
            }
            await arrived.wait { $0 ? () : nil }
        }
    }

    @Test("members of a group take turns, however many requests one of them has waiting")
    func fairness() async throws {
        let clock = SimulatedClock()
        let group = try Self.group(ThrottleLimits(iopsTotal: 10), clock)
        let members = [group.join(), group.join(), group.join()]
        let log = Log()
        await withTaskGroup(of: Void.self) { tasks in
            // One tenth of a second's worth is one request, and one more may start when the bucket is just full: two pass at once.
            await Self.send(2, of: members[0], group, clock, log, in: &tasks)
            await log.wait(for: 2)
            await Self.send(9, of: members[0], group, clock, log, in: &tasks)
            await Self.send(3, of: members[1], group, clock, log, in: &tasks)
            await Self.send(3, of: members[2], group, clock, log, in: &tasks)
            while group.waitingCount < 15 { await Task.yield() }
            for done in 3...17 {
                while !clock.advance() { await Task.yield() }
                await log.wait(for: done)
            }
            await tasks.waitForAll()
        }
        let order = Array(log.members.dropFirst(2))
        // As long as all three have something waiting, each comes once in any three.
        for start in stride(from: 0, to: 9, by: 3) { #expect(Set(order[start..<start + 3]) == Set(members)) }
        #expect(order.dropFirst(9).allSatisfy { $0 == members[0] })
        let times = Array(log.times.dropFirst(2))
        #expect(zip(times, times.dropFirst()).allSatisfy { abs($1 - $0 - 100_000_000) <= 2 }, "\(times)")
    }

    @Test("a change of limits is felt by those who wait already")
    func change() async throws {
        let clock = SimulatedClock()
        let group = try Self.group(ThrottleLimits(iopsTotal: 1), clock)
        let member = group.join()
        let log = Log()
        try await withThrowingTaskGroup(of: Void.self) { outer in
            outer.addTask {
                await withTaskGroup(of: Void.self) { tasks in
                    await Self.send(20, of: member, group, clock, log, in: &tasks)
                    await tasks.waitForAll()
                }
            }
            await log.wait(for: 1)
            while group.waitingCount < 19 { await Task.yield() }
            #expect(throws: BlockError.self) { try group.change(to: ThrottleLimits(iopsRead: 5)) }
            #expect(log.members.count == 1)
            // No limit at all: everybody goes, without a timer.
            try group.change(to: ThrottleLimits(iopsTotal: 0))
            await log.wait(for: 20)
            #expect(!group.limits(.read) && !group.limits(.write))
            try await outer.waitForAll()
        }
        #expect(log.times.allSatisfy { $0 == 0 })
    }

    @Test("nobody waits for a timer on a thread that has ended: it runs where the one whose turn it is waits")
    func endedThread() async throws {
        let clock = SimulatedClock()
        let group = try Self.group(ThrottleLimits(iopsTotal: 10), clock)
        let (first, second) = (group.join(), group.join())
        let threads = [try IOContext.startThread(name: "first"), try IOContext.startThread(name: "second")]
        let log = Log()
        func send(_ count: Int, of member: Int, on thread: IOContext) -> [Task<Void, Never>] {
            (0..<count).map { _ in
                Task(executorPreference: thread) {
                    await group.admit(512, .write, member: member)
                    log.append(member, clock.now)
                }
            }
        }
        // Two may start; the third sets the timer, on its own thread.
        let early = send(3, of: first, on: threads[0])
        while group.waitingCount < 1 { await Task.yield() }
        #expect(clock.lastContext === threads[0])
        let late = send(1, of: second, on: threads[1])
        while group.waitingCount < 2 { await Task.yield() }
        // What the first member has waiting is let go, and its thread ends.
        group.beginDrain(of: first)
        for task in early { await task.value }
        group.endDrain(of: first)
        threads[0].stop()
        threads[0].join()
        #expect(clock.lastContext === threads[1])
        while log.members.count < 4 { if !clock.advance() { await Task.yield() } }
        for task in late { await task.value }
        #expect(log.members == [first, first, first, second])
        threads[1].stop()
        threads[1].join()
    }

    @Test("draining one member lets its requests go and leaves the others' turns alone")
    func drain() async throws {
        let clock = SimulatedClock()
        let group = try Self.group(ThrottleLimits(iopsTotal: 1), clock)
        let (drained, other) = (group.join(), group.join())
        let log = Log()
        await withTaskGroup(of: Void.self) { tasks in
            await Self.send(1, of: drained, group, clock, log, in: &tasks)
            await log.wait(for: 1)
            await Self.send(5, of: drained, group, clock, log, in: &tasks)
            await Self.send(2, of: other, group, clock, log, in: &tasks)
            while group.waitingCount < 7 { await Task.yield() }
            group.beginDrain(of: drained)
            await log.wait(for: 6)
            #expect(log.members == Array(repeating: drained, count: 6) && log.times.allSatisfy { $0 == 0 })
            await Self.send(1, of: drained, group, clock, log, in: &tasks)
            await log.wait(for: 7)
            group.endDrain(of: drained)
            while log.members.count < 9 { if !clock.advance() { await Task.yield() } }
            await tasks.waitForAll()
        }
        #expect(log.members.suffix(2) == [other, other])
        // Drained requests have been counted: the others pay for them.
        #expect(log.times.suffix(2).allSatisfy { $0 > 6_000_000_000 })
    }
}
