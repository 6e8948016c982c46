@testable import QCOW2
import StrataTesting
import Testing

@Suite("The cache of the qcow2 mapping")
struct SliceCacheTests {
    private static let sliceBits = 3

    /// The slice as it lies on disk: entries that tell which slice they belong to.
    private static func bytes(of slice: Int) -> [UInt8] {
        (0..<1 << sliceBits).flatMap { position in withUnsafeBytes(of: value(slice, position).bigEndian) { [UInt8]($0) } }
    }

    private static func value(_ slice: Int, _ position: Int) -> UInt64 { UInt64(slice << sliceBits + position) << 16 }

    /// Loads a slice if it is not there, with those behind it that the cache asks for.
    private static func load(_ slice: Int, _ cache: inout L2SliceCache, last: Int, isPassing: Bool) {
        guard case .read = cache.beginLoad(of: slice, isPassing: isPassing) else { return }
        let ahead = cache.beginReadingAhead(of: slice, through: last, isPassing: isPassing)
        for next in slice...slice + ahead {
            guard let slot = cache.loadingSlot(of: next) else {
                Issue.record("slice \(next) has no slot although its load has begun")
                continue
            }
            let onDisk = bytes(of: next)
            cache.finishLoad(slot, onDisk.span.bytes)
        }
    }

    private static func holds(_ slice: Int, _ cache: inout L2SliceCache) -> Bool {
        guard let slot = cache.slot(of: slice) else { return false }
        return (0..<1 << sliceBits).allSatisfy { cache.entry(slot, $0).bits == value(slice, $0) }
    }

    @Test("who goes through a large mapping keeps little of it, and what others have loaded stays")
    func passing() {
        var cache = L2SliceCache(sliceBits: Self.sliceBits, capacity: 1024)
        let kept = stride(from: 100_000, to: 100_200, by: 2).map { $0 }
        for slice in kept { Self.load(slice, &cache, last: slice, isPassing: false) }
        for slice in 0..<20_000 {
            Self.load(slice, &cache, last: 20_000, isPassing: true)
            if !Self.holds(slice, &cache) { Issue.record("slice \(slice) is not there after its load") }
        }
        #expect(cache.slotCount <= kept.count + 64)
        #expect(kept.allSatisfy { Self.holds($0, &cache) })
    }

    @Test("what is loaded is there and right, and what has changed stays, whoever loads what", arguments: 1...20 as ClosedRange<UInt64>)
    func randomLoads(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        var cache = L2SliceCache(sliceBits: Self.sliceBits, capacity: 600)
        var changed: [Int: UInt64] = [:]
        var position = 0
        for _ in 0..<20_000 {
            let isPassing = Bool.random(using: &random)
            position = Int.random(in: 0..<50, using: &random) == 0 ? Int.random(in: 0..<5000, using: &random) : position + 1
            Self.load(position, &cache, last: 6000, isPassing: isPassing)
            guard let slot = cache.slot(of: position) else {
                Issue.record("slice \(position) is not there after its load")
                return
            }
            if let bits = changed[position] {
                if cache.entry(slot, 0).bits != bits { Issue.record("slice \(position) has lost a change") }
            } else if !Self.holds(position, &cache) {
                Issue.record("slice \(position) holds something else")
            }
            if changed.count < 300, Int.random(in: 0..<20, using: &random) == 0 {
                let bits = UInt64.random(in: 0..<1 << 40, using: &random) << 16
                cache.set(L2Entry(bits: bits), slot, 0)
                changed[position] = bits
            }
        }
        for (slice, bits) in changed {
            let slot = cache.slot(of: slice)
            #expect(slot.map { cache.entry($0, 0).bits } == bits, "a slice that has changed is never dropped")
        }
        #expect(cache.dirtyCount == changed.count)
    }
}
