@testable import ImgTool
import IOCore
import StrataBase
import Testing

@Suite("the parts of convert")
struct ConvertPartsTests {
    @Test("stripes cover everything once, aligned, also after a jump")
    func stripes() {
        let cursor = StripeCursor(length: 1000, stripeSize: 64)
        #expect(cursor.next()?.range == 0..<64)
        cursor.skip(to: 500)
        #expect(cursor.next()?.range == 500..<512)
        cursor.skip(to: 300)
        #expect(cursor.next()?.range == 512..<576)
        cursor.skip(to: 5000)
        #expect(cursor.next() == nil)
    }

    @Test("runs of zero and data alternate and lie at multiples of the unit in the target", arguments: [1, 2, 3, 4, 5])
    func zeroScan(seed: UInt64) async throws {
        var random = SplitMix(seed)
        let unit = 512
        let buffer = IOBuffer(zeroed: 16 * unit)
        let start = GuestOffset(Int(random.next() % 4) * unit + 100)
        var expected: [UInt8] = []
        buffer.withMutableBytes { bytes in
            for _ in 0..<6 {
                let position = Int(random.next() % UInt64(bytes.byteCount))
                bytes.storeBytes(of: 0xaa, toByteOffset: position, as: UInt8.self)
            }
            for index in 0..<bytes.byteCount { expected.append(bytes.unsafeLoad(fromByteOffset: index, as: UInt8.self)) }
        }
        var runs: [(start: Int, count: Int, isZero: Bool)] = []
        try await ZeroScan(unit: unit).forEachRun(of: buffer.vector, at: start) { (start, count, isZero) async throws(BlockError) in
            runs.append((start, count, isZero))
        }
        withExtendedLifetime(buffer) {}
        #expect(runs.reduce(0) { $0 + $1.count } == expected.count)
        for (index, run) in runs.enumerated() {
            #expect(run.start == (index == 0 ? 0 : runs[index - 1].start + runs[index - 1].count))
            #expect(index == 0 || run.isZero != runs[index - 1].isZero)
            #expect(index == 0 || (start + run.start).isAligned(to: unit))
            if run.isZero { #expect(expected[run.start..<run.start + run.count].allSatisfy { $0 == 0 }) }
        }
        // A run of data has no unit that is all zero.
        for run in runs where !run.isZero {
            var position = run.start
            while position < run.start + run.count {
                let end = min(run.start + run.count, position + unit - (start.rawValue + position) % unit)
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

/// A small seeded generator.
struct SplitMix: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }
}
