import DriverTesting
import IOCore
import StrataBase
import Synchronization
import Testing

@testable import BlockCopy

@Suite("the parts of a copier")
struct CopyPartsTests {
    @Test("stripes cover everything once, aligned, also after a jump")
    func stripes() {
        let cursor = StripeCursor(length: 1000, stripeSize: 64)
        #expect(cursor.next()?.range == 0..<64)
        #expect(cursor.skip(64..<500) == 436)
        #expect(cursor.next()?.range == 500..<512)
        #expect(cursor.skip(64..<300) == 0)
        #expect(cursor.next()?.range == 512..<576)
        #expect(cursor.skip(576..<5000) == 424)
        #expect(cursor.next() == nil)
    }

    @Test("a stripe that failed comes again, with its number, and counts once")
    func returnedStripes() throws {
        let cursor = StripeCursor(length: 256, stripeSize: 128)
        let first = try #require(cursor.next())
        cursor.finish(first, succeeded: false)
        #expect(cursor.done == 0)
        #expect(cursor.next() == first)
        cursor.finish(first, succeeded: true)
        let second = try #require(cursor.next())
        #expect(second.number == 1)
        cursor.finish(second, succeeded: true)
        #expect(cursor.done == 256)
        #expect(cursor.next() == nil)
        cursor.stop()
        cursor.finish(second, succeeded: false)
        #expect(cursor.next() == nil)
    }

    @Test("runs of zero and data alternate and lie at multiples of the unit in the target", arguments: [1, 2, 3, 4, 5])
    func zeroScan(seed: UInt64) {
        var random = SeededNumbers(seed: seed)
        let unit = 512
        let buffer = IOBuffer(zeroed: 16 * unit)
        let start = Int(random.next() % 4) * unit + 100
        var expected: [UInt8] = []
        buffer.withMutableBytes { bytes in
            for _ in 0..<6 {
                let position = Int(random.next() % UInt64(bytes.byteCount))
                bytes.storeBytes(of: 0xaa, toByteOffset: position, as: UInt8.self)
            }
            for index in 0..<bytes.byteCount { expected.append(bytes.unsafeLoad(fromByteOffset: index, as: UInt8.self)) }
        }
        var runs: [(start: Int, count: Int, isZero: Bool)] = []
        let scan = ZeroScan(unit: unit)
        var next = 0
        while next < buffer.byteCount {
            let (count, isZero) = scan.run(of: buffer.vector, from: next, at: start)
            runs.append((next, count, isZero))
            next += count
        }
        withExtendedLifetime(buffer) {}
        #expect(runs.reduce(0) { $0 + $1.count } == expected.count)
        for (index, run) in runs.enumerated() {
            #expect(run.start == (index == 0 ? 0 : runs[index - 1].start + runs[index - 1].count))
            #expect(index == 0 || run.isZero != runs[index - 1].isZero)
            #expect(index == 0 || (start + run.start) % unit == 0)
            if run.isZero { #expect(expected[run.start..<run.start + run.count].allSatisfy { $0 == 0 }) }
        }
        // A run of data has no unit that is all zero.
        for run in runs where !run.isZero {
            var position = run.start
            while position < run.start + run.count {
                let end = min(run.start + run.count, position + unit - (start + position) % unit)
                #expect(expected[position..<end].contains { $0 != 0 })
                position = end
            }
        }
    }

    @Test("writers go in the order of their stripes, whoever is ready first")
    func writeOrder() async {
        let order = WriteOrder()
        let log = Log()
        await withTaskGroup(of: Void.self) { group in
            for stripe in [3, 1, 2, 0] {
                group.addTask {
                    if stripe != 2 {
                        await order.waitForTurn(of: stripe)
                        await log.add(stripe)
                    }
                    order.finish(stripe)
                }
            }
        }
        #expect(await log.entries == [0, 1, 3])
    }

    /// Runs of 100 bytes, data and zeroes in turn. Looking one up takes a while, and fails where it is told to.
    private final class SlowRuns: CopySource {
        let length = 1000
        let looked = Mutex<[Int]>([])
        let failing = Mutex<Set<Int>>([])

        func run(at position: Int, limit: Int) async throws(BlockError) -> CopyRun {
            let number = position / 100
            looked.withLock { $0.append(number) }
            for _ in 0..<10 { await Task.yield() }
            if failing.withLock({ $0.contains(number) }) { throw BlockError(.io, "run \(number)") }
            return CopyRun(number.isMultiple(of: 2) ? .data : .zero, position..<number * 100 + 100)
        }

        func tryRead(_ data: IOVector, at position: Int) -> Bool { false }
        func read(_ data: IOVector, at position: Int) async throws(BlockError) {}
    }

    @Test("each run is looked up once for all workers, and the next one by whoever comes into the last that is known")
    func runMap() async throws {
        let source = SlowRuns()
        let map = RunMap(source)
        #expect(try await map.run(at: 0) == CopyRun(.data, 0..<100))
        #expect(source.looked.withLock { $0 } == [0])
        #expect(try await map.run(at: 50) == CopyRun(.data, 0..<100))
        #expect(source.looked.withLock { $0 } == [0, 1], "the second one looks ahead")
        for start in stride(from: 0, to: 1000, by: 40) {
            await withTaskGroup(of: Void.self) { group in
                for position in [start, start + 10, start + 20, start + 39] {
                    group.addTask {
                        let run = try? await map.run(at: min(position, 999))
                        #expect(run?.range.contains(min(position, 999)) == true && run?.range.count == 100)
                        #expect(run.map { $0.kind == ($0.range.lowerBound / 100 % 2 == 0 ? .data : .zero) } == true)
                    }
                }
            }
        }
        let looked = source.looked.withLock { $0 }
        #expect(Set(looked) == Set(0..<10), "\(looked)")
        // One that lags two runs behind may have to look again; here nobody does.
        #expect(looked.count == 10, "\(looked)")
    }

    @Test("what cannot be looked up ahead is an error to the one whose turn it is, every time, and to nobody before")
    func runMapFailure() async throws {
        let source = SlowRuns()
        let map = RunMap(source)
        source.failing.withLock { $0 = [1] }
        for position in [0, 20, 40, 60] { #expect(try await map.run(at: position) == CopyRun(.data, 0..<100)) }
        #expect(source.looked.withLock { $0 } == [0, 1], "ahead is tried once")
        for position in [100, 130] {
            let error = await #expect(throws: BlockError.self) { try await map.run(at: position) }
            #expect(error?.message.contains("run 1") == true)
        }
        source.failing.withLock { $0 = [] }
        #expect(try await map.run(at: 100) == CopyRun(.zero, 100..<200))
        #expect(try await map.run(at: 250) == CopyRun(.data, 250..<300))
    }

    @Test("a thread whose copy is over is one like any other again")
    func callingThread() async throws {
        let thread = try IOContext.startThread(name: "caller")
        let states: [Bool] = await withCheckedContinuation { continuation in
            thread.spawn {
                var states = [thread.isForCopying]
                let threads = CopyThreads(thread, for: 64 << 20)
                states.append(thread.isForCopying)
                let inner = CopyThreads(thread, for: 0)
                inner.stop()
                states.append(thread.isForCopying)
                threads.stop()
                states.append(thread.isForCopying)
                continuation.resume(returning: states)
            }
        }
        thread.stop()
        thread.join()
        #expect(states == [false, true, true, false])
    }

    private actor Log {
        var entries: [Int] = []
        func add(_ entry: Int) { entries.append(entry) }
    }
}
