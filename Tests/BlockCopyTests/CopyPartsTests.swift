import DriverTesting
import IOCore
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

    private actor Log {
        var entries: [Int] = []
        func add(_ entry: Int) { entries.append(entry) }
    }
}
