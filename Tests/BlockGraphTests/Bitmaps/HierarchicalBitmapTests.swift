import BlockGraph
import StrataBase
import StrataTesting
import Testing

@Suite("hierarchical bitmaps")
struct HierarchicalBitmapTests {
    private func range(_ start: Int, _ count: Int) -> GuestRange { GuestRange(GuestOffset(start), byteCount: count) }

    /// One Bool for each granule.
    private struct Model {
        var dirty: [Bool]
        let granularity: Int
        var byteCount: Int

        init(_ byteCount: Int, _ granularity: Int) {
            self.byteCount = byteCount
            self.granularity = granularity
            dirty = Array(repeating: false, count: (byteCount + granularity - 1) / granularity)
        }

        func byteIsDirty(_ byte: Int) -> Bool { dirty[byte / granularity] }

        mutating func set(_ range: GuestRange) {
            for granule in dirty.indices where granule * granularity < range.end.rawValue && range.start.rawValue < min((granule + 1) * granularity, byteCount) && !range.isEmpty {
                dirty[granule] = true
            }
        }

        mutating func clear(_ range: GuestRange) {
            for granule in dirty.indices where range.start.rawValue <= granule * granularity && min((granule + 1) * granularity, byteCount) <= range.end.rawValue {
                dirty[granule] = false
            }
        }
    }

    private func compare(_ bitmap: HierarchicalBitmap, _ model: Model, _ random: inout SeededGenerator) -> Bool {
        guard bitmap.dirtyCount == model.dirty.count(where: { $0 }), bitmap.isEmpty == !model.dirty.contains(true) else { return false }
        for index in 0..<bitmap.wordCount {
            for bit in 0..<64 where index * 64 + bit < model.dirty.count {
                if (bitmap.word(index) >> UInt64(bit) & 1 != 0) != model.dirty[index * 64 + bit] { return false }
            }
        }
        for _ in 0..<8 {
            let start = Int.random(in: 0..<model.byteCount, using: &random)
            let end = Int.random(in: start...model.byteCount, using: &random)
            let searched = range(start, end - start)
            var position = start
            var dirty: Int?, clean: Int?
            var count = 0
            // By granules, so that large disks are as quick as small ones.
            while position < end {
                let next = min(end, (position / model.granularity + 1) * model.granularity)
                if model.byteIsDirty(position) {
                    dirty = dirty ?? position
                    count += next - position
                } else {
                    clean = clean ?? position
                }
                position = next
            }
            guard bitmap.nextDirty(in: searched)?.rawValue == dirty, bitmap.nextClean(in: searched)?.rawValue == clean,
                bitmap.dirtyByteCount(in: searched) == count
            else { return false }
            let limit = Int.random(in: 1...model.byteCount, using: &random)
            guard let dirty else {
                if bitmap.nextDirtyRange(in: searched, limit: limit) != nil { return false }
                continue
            }
            var runEnd = dirty
            while runEnd < end, model.byteIsDirty(runEnd) { runEnd = min(end, (runEnd / model.granularity + 1) * model.granularity) }
            guard bitmap.nextDirtyRange(in: searched, limit: limit) == range(dirty, min(runEnd - dirty, limit)) else { return false }
        }
        return true
    }

    @Test("every operation does what an array of Bools does, for many sizes and granularities", arguments: 0..<60 as Range<UInt64>)
    func model(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let granularity = 512 << Int.random(in: 0..<6, using: &random)
        // Up to some chunks of 32768 bits; mostly not whole granules.
        var size = Int.random(in: 1...(1 << Int.random(in: 1...17, using: &random)), using: &random) * granularity - Int.random(in: 0..<granularity, using: &random)
        var bitmap = try HierarchicalBitmap(byteCount: size, granularity: granularity)
        var model = Model(size, granularity)
        var copies: [(HierarchicalBitmap, Model)] = []
        for round in 0..<40 {
            let start = Int.random(in: 0..<size, using: &random)
            let count = Int.random(in: 0...min(size - start, Bool.random(using: &random) ? 3 * granularity : size), using: &random)
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<5:
                bitmap.set(range(start, count))
                model.set(range(start, count))
            case 5..<7:
                bitmap.clear(range(start, count))
                model.clear(range(start, count))
            case 7:
                let other = 512 << Int.random(in: 0..<6, using: &random)
                var merged = try HierarchicalBitmap(byteCount: size, granularity: other)
                for _ in 0..<5 {
                    let start = Int.random(in: 0..<size, using: &random)
                    let piece = range(start, Int.random(in: 0...min(size - start, 5 * granularity), using: &random))
                    merged.set(piece)
                    if !piece.isEmpty {
                        // Widened twice: by the other's granules and by ours.
                        let low = piece.start.roundedDown(to: other)
                        model.set(range(low.rawValue, min(piece.end.roundedUp(to: other).rawValue, size) - low.rawValue))
                    }
                }
                bitmap.merge(merged)
            case 8:
                size = max(1, Bool.random(using: &random) ? size / 2 : size + Int.random(in: 0...size, using: &random))
                try bitmap.resize(to: size)
                var other = Model(size, granularity)
                for granule in other.dirty.indices where granule < model.dirty.count { other.dirty[granule] = model.dirty[granule] }
                model = other
            default:
                copies.append((bitmap, model))
                if Bool.random(using: &random) {
                    bitmap.setAll()
                    model.set(range(0, size))
                }
            }
            #expect(compare(bitmap, model, &random), "seed \(seed), round \(round)")
        }
        // Values: whatever became of the original, copies are what they were.
        for (copy, model) in copies { #expect(compare(copy, model, &random), "seed \(seed): a copy has changed") }
        var words = try HierarchicalBitmap(byteCount: size, granularity: granularity)
        for index in 0..<bitmap.wordCount { words.mark(bitmap.word(index), at: index) }
        #expect(words == bitmap, "seed \(seed): read back from its words")
        words.mark(.max, at: max(0, bitmap.wordCount - 1))
        #expect(words.dirtyCount <= model.dirty.count, "seed \(seed): bits beyond the end are not taken in")
    }

    @Test("the few dirty parts of a petabyte are found without looking at the rest, and take little memory")
    func sparse() throws {
        let size = 1 << 50
        var bitmap = try HierarchicalBitmap(byteCount: size, granularity: 65536)
        var random = SeededGenerator(seed: 7)
        let marks = Set((0..<1000).map { _ in Int.random(in: 0..<size / 65536, using: &random) * 65536 }).sorted()
        for mark in marks { bitmap.set(range(mark, 1)) }
        let elapsed = ContinuousClock().measure {
            var found: [Int] = []
            var position = 0
            while let run = bitmap.nextDirtyRange(in: range(position, size - position)) {
                found.append(run.start.rawValue)
                position = run.end.rawValue
            }
            #expect(found == marks)
        }
        // 2^34 bits lie between them; looking at each word would take minutes in a debug build.
        #expect(elapsed < .seconds(10))
        bitmap.setAll()
        #expect(bitmap.dirtyByteCount == size && bitmap.nextClean(in: range(0, size)) == nil)
        bitmap.clear(range(size - 65536, 65536))
        #expect(bitmap.nextClean(in: range(0, size))?.rawValue == size - 65536)
    }

    @Test("granularities and sizes that cannot be are refused")
    func refusals() {
        for granularity in [-1, 0, 1, 256, 511, 513, 65535, 1 << 32, .min, .max] {
            #expect(throws: BlockError.self) { try HierarchicalBitmap(byteCount: 1 << 20, granularity: granularity) }
        }
        for granularity in [512, 1 << 31] { #expect(throws: Never.self) { try HierarchicalBitmap(byteCount: 1 << 20, granularity: granularity) } }
        #expect(throws: BlockError.self) { try HierarchicalBitmap(byteCount: .max, granularity: 512) }
        #expect(HierarchicalBitmap.defaultGranularity(clusterSize: nil) == 65536)
        #expect([512, 4096, 16384, 65536, 2 << 20].map(HierarchicalBitmap.defaultGranularity(clusterSize:)) == [4096, 4096, 16384, 65536, 65536])
    }

    @Test("digests are those of SHA-256")
    func digest() throws {
        // Examples of FIPS 180-2, and eight zero bytes as coreutils' sha256sum has them.
        var digest = SHA256()
        digest.update("abc".utf8)
        #expect(digest.hexadecimal() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        digest = SHA256()
        digest.update("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".utf8)
        #expect(digest.hexadecimal() == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
        #expect(try HierarchicalBitmap(byteCount: 1 << 20, granularity: 65536).sha256 == "af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc")
        var words = SHA256(), bytes = SHA256()
        for value in 0..<50 as Range<UInt64> {
            words.update(littleEndian: value &* 0x0123_4567_89ab_cdef)
            for shift in 0..<8 as Range<UInt64> { bytes.update(UInt8(truncatingIfNeeded: (value &* 0x0123_4567_89ab_cdef) >> (8 * shift))) }
        }
        #expect(words.hexadecimal() == bytes.hexadecimal())
    }
}
