import IOCore
import StrataBase
import Synchronization
import Testing

@Suite("I/O contexts")
struct IOContextTests {
    /// Runs `body` on a context with a thread of its own and hands back what it returned.
    static func onThread<R: Sendable>(_ body: @escaping @Sendable () async -> R) async throws -> R {
        let context = try IOContext.startThread(name: "test")
        let result = await withCheckedContinuation { (continuation: CheckedContinuation<R, Never>) in
            context.spawn { continuation.resume(returning: await body()) }
        }
        context.stop()
        context.join()
        return result
    }

    @Test("a task of a context stays on its thread across suspensions")
    func staysOnThread() async throws {
        let stayed = try await Self.onThread {
            let home = IOContext.current
            var stayed = home != nil
            for _ in 0..<100 {
                await Task.yield()
                stayed = stayed && IOContext.current === home
                _ = await BlockingPool.run { 1 }
                stayed = stayed && IOContext.current === home
            }
            return stayed
        }
        #expect(stayed)
    }

    @Test("calls posted by several threads all run, each thread's in order")
    func postsArrive() async throws {
        let context = try IOContext.startThread(name: "test")
        let seen = Shared<[Int: [Int]]>([:])
        await withTaskGroup(of: Void.self) { group in
            for sender in 0..<4 {
                group.addTask {
                    for index in 0..<500 { context.post { seen.value.withLock { $0[sender, default: []].append(index) } } }
                    await context.turnBoundary()
                }
            }
        }
        context.stop()
        context.join()
        #expect(seen.value.withLock { $0 } == [0: Array(0..<500), 1: Array(0..<500), 2: Array(0..<500), 3: Array(0..<500)])
    }

    @Test("timers fire in the order of their deadlines, and a cancelled one does not")
    func timersInOrder() async throws {
        let order = Shared<[Int]>([])
        _ = try await Self.onThread {
            guard let context = IOContext.current else { return }
            context.schedule(after: .milliseconds(20)) { order.value.withLock { $0.append(2) } }
            context.schedule(after: .milliseconds(10)) { order.value.withLock { $0.append(1) } }
            context.schedule(after: .milliseconds(15)) { order.value.withLock { $0.append(9) } }.cancel()
            await context.sleep(for: .milliseconds(30))
        }
        #expect(order.value.withLock { $0 } == [1, 2])
    }

    @Test("the main loop returns what its body returns")
    func mainLoop() async throws {
        let result = try await BlockingPool.run { Result { try IOContext.runMain { await Task.yield(); return 42 } } }.get()
        #expect(result == 42)
    }

    @Test("an async mutex hands itself on in order of arrival and never lets two in")
    func mutexIsFair() async throws {
        let mutex = AsyncMutex()
        let counts = Shared((inside: 0, worst: 0))
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<20 {
                group.addTask {
                    for _ in 0..<50 {
                        await mutex.withLock {
                            counts.value.withLock { $0 = ($0.inside + 1, max($0.worst, $0.inside + 1)) }
                            await Task.yield()
                            counts.value.withLock { $0.inside -= 1 }
                        }
                    }
                }
            }
        }
        #expect(counts.value.withLock { $0.worst } == 1)
    }

    @Test("waiting for idle returns once everybody has left")
    func inFlight() async throws {
        let counter = InFlightCounter()
        let left = Shared(0)
        for _ in 0..<50 { counter.enter() }
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<50 {
                group.addTask {
                    await Task.yield()
                    left.value.withLock { $0 += 1 }
                    counter.leave()
                }
            }
            group.addTask {
                await counter.waitUntilIdle()
                #expect(left.value.withLock { $0 } == 50)
            }
        }
    }

    @Test("worker threads let go of what they have done although there is always more to do")
    func workersForget() async {
        let tokens = Shared((live: 0, most: 0))
        final class Token: Sendable {
            let tokens: Shared<(live: Int, most: Int)>
            init(_ tokens: Shared<(live: Int, most: Int)>) {
                self.tokens = tokens
                tokens.value.withLock { $0 = ($0.live + 1, max($0.most, $0.live + 1)) }
            }
            deinit { tokens.value.withLock { $0.live -= 1 } }
        }
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<300 {
                group.addTask {
                    for _ in 0..<50 { await BlockingPool.run { [token = Token(tokens)] in withExtendedLifetime(token) {} } }
                }
            }
        }
        #expect(tokens.value.withLock { $0.most } < 1500)
    }
}

/// A value that several tasks of a test share.
final class Shared<Value: Sendable>: Sendable {
    let value: Mutex<Value>
    init(_ value: Value) { self.value = Mutex(value) }
}
