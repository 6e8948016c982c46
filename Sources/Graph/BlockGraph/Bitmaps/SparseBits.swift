/// A set of whole numbers below a bound, for bounds up to 2^37 and sets that are mostly empty, mostly full, or anything between.
///
/// Numbers come in chunks of 32768. A chunk without members takes no memory, all chunks that are full share one, and copies of a set share what
/// neither has changed since. Looking for the next member skips empty words and chunks by summaries, so it takes about as long in a sparse
/// terabyte as in a gigabyte.
struct SparseBits: Sendable, Equatable {
    /// Sets for more numbers are refused by the callers: the list of chunks alone would take more than 32 MiB.
    static let maximumBitCount = 1 << 37

    private static let chunkShift = 15
    private static let chunkBits = 1 << chunkShift
    private static let wordCount = chunkBits / 64
    /// A chunk begins with the number of its members, then a bit for each word that is not zero; then come the words.
    private static let summaryStart = 1
    private static let wordStart = summaryStart + wordCount / 64
    private static let fullChunk: [UInt64] =
        [UInt64(chunkBits)] + [UInt64](repeating: .max, count: wordCount / 64 + wordCount)

    private(set) var bitCount: Int
    /// How many members the set has.
    private(set) var count = 0
    /// Empty arrays stand for chunks without members.
    private var chunks: [[UInt64]]
    /// Level 0 has a bit for each chunk with members, each further level a bit for each word of the one below that is not zero.
    private var occupied: [[UInt64]]

    init(bitCount: Int) {
        precondition((0...Self.maximumBitCount).contains(bitCount), "the bound of a set of bits is in range")
        self.bitCount = bitCount
        chunks = Array(repeating: [], count: bitCount.dividedUp(by: Self.chunkBits))
        occupied = Self.levels(forChunks: chunks.count)
    }

    private static func levels(forChunks count: Int) -> [[UInt64]] {
        var levels: [[UInt64]] = []
        var bits = count
        repeat {
            bits = bits.dividedUp(by: 64)
            levels.append([UInt64](repeating: 0, count: bits))
        } while bits > 1
        return levels
    }

    var isEmpty: Bool { count == 0 }

    // MARK: Changing

    mutating func insert(_ range: Range<Int>) {
        forEachChunk(range) { set, chunk, bits in set.insert(bits, chunk) }
    }

    mutating func remove(_ range: Range<Int>) {
        forEachChunk(range) { set, chunk, bits in set.remove(bits, chunk) }
    }

    private mutating func forEachChunk(_ range: Range<Int>, _ body: (inout SparseBits, _ chunk: Int, _ bits: Range<Int>) -> Void) {
        precondition(range.lowerBound >= 0 && range.upperBound <= bitCount, "numbers lie below the bound")
        var position = range.lowerBound
        while position < range.upperBound {
            let chunk = position >> Self.chunkShift
            let base = chunk << Self.chunkShift
            let end = min(range.upperBound, base + Self.chunkBits)
            body(&self, chunk, position - base..<end - base)
            position = end
        }
    }

    private mutating func insert(_ bits: Range<Int>, _ chunk: Int) {
        let old = memberCount(chunk)
        if old == Self.chunkBits { return }
        if bits.count == Self.chunkBits {
            chunks[chunk] = Self.fullChunk
        } else {
            if old == 0 { chunks[chunk] = [UInt64](repeating: 0, count: Self.wordStart + Self.wordCount) }
            Self.fill(&chunks[chunk], bits)
        }
        if old == 0 { markOccupied(chunk) }
        count += memberCount(chunk) - old
    }

    private static func fill(_ chunk: inout [UInt64], _ bits: Range<Int>) {
        forEachWord(bits) { word, mask in
            let missing = mask & ~chunk[wordStart + word]
            if missing == 0 { return }
            chunk[wordStart + word] |= missing
            chunk[summaryStart + word / 64] |= 1 << UInt64(word % 64)
            chunk[0] += UInt64(missing.nonzeroBitCount)
        }
    }

    private mutating func remove(_ bits: Range<Int>, _ chunk: Int) {
        let old = memberCount(chunk)
        if old == 0 { return }
        if bits.count == Self.chunkBits { chunks[chunk] = [] } else { Self.empty(&chunks[chunk], bits) }
        let left = memberCount(chunk)
        count += left - old
        if left > 0 { return }
        chunks[chunk] = []
        markVacant(chunk)
    }

    private static func empty(_ chunk: inout [UInt64], _ bits: Range<Int>) {
        forEachWord(bits) { word, mask in
            let present = mask & chunk[wordStart + word]
            if present == 0 { return }
            chunk[wordStart + word] &= ~present
            if chunk[wordStart + word] == 0 { chunk[summaryStart + word / 64] &= ~(1 << UInt64(word % 64)) }
            chunk[0] -= UInt64(present.nonzeroBitCount)
        }
    }

    /// The words that `bits` lie in, each with the mask of those bits.
    private static func forEachWord(_ bits: Range<Int>, _ body: (_ word: Int, _ mask: UInt64) -> Void) {
        var position = bits.lowerBound
        while position < bits.upperBound {
            let word = position / 64
            let end = min(bits.upperBound, (word + 1) * 64)
            let length = UInt64(end - position)
            let mask: UInt64 = length == 64 ? .max : ((1 << length) - 1) << UInt64(position % 64)
            body(word, mask)
            position = end
        }
    }

    private func memberCount(_ chunk: Int) -> Int { Int(chunks[chunk].first ?? 0) }

    private mutating func markOccupied(_ chunk: Int) {
        var index = chunk
        for level in occupied.indices {
            let old = occupied[level][index / 64]
            occupied[level][index / 64] = old | 1 << UInt64(index % 64)
            if old != 0 { return }
            index /= 64
        }
    }

    private mutating func markVacant(_ chunk: Int) {
        var index = chunk
        for level in occupied.indices {
            occupied[level][index / 64] &= ~(1 << UInt64(index % 64))
            if occupied[level][index / 64] != 0 { return }
            index /= 64
        }
    }

    /// Adds the members of another set with the same bound.
    mutating func formUnion(_ other: SparseBits) {
        precondition(other.bitCount == bitCount, "sets of one bound are united")
        var next = other.nextOccupied(from: 0)
        while let chunk = next {
            next = other.nextOccupied(from: chunk + 1)
            let old = memberCount(chunk)
            if old == Self.chunkBits { continue }
            if old == 0 || other.memberCount(chunk) == Self.chunkBits {
                chunks[chunk] = other.chunks[chunk]
                if old == 0 { markOccupied(chunk) }
            } else {
                for word in 0..<Self.wordCount {
                    let bits = other.chunks[chunk][Self.wordStart + word]
                    if bits != 0 { Self.add(bits, toWord: word, &chunks[chunk]) }
                }
            }
            count += memberCount(chunk) - old
        }
    }

    private static func add(_ bits: UInt64, toWord word: Int, _ chunk: inout [UInt64]) {
        let missing = bits & ~chunk[wordStart + word]
        if missing == 0 { return }
        chunk[wordStart + word] |= missing
        chunk[summaryStart + word / 64] |= 1 << UInt64(word % 64)
        chunk[0] += UInt64(missing.nonzeroBitCount)
    }

    /// Changes the bound. Members beyond a lower one are gone.
    mutating func resize(to newCount: Int) {
        precondition((0...Self.maximumBitCount).contains(newCount), "the bound of a set of bits is in range")
        if newCount < bitCount { remove(newCount..<bitCount) }
        bitCount = newCount
        let chunkCount = newCount.dividedUp(by: Self.chunkBits)
        if chunkCount == chunks.count { return }
        if chunkCount < chunks.count {
            chunks.removeLast(chunks.count - chunkCount)
        } else {
            chunks += Array(repeating: [], count: chunkCount - chunks.count)
        }
        occupied = Self.levels(forChunks: chunkCount)
        for chunk in chunks.indices where !chunks[chunk].isEmpty { markOccupied(chunk) }
    }

    // MARK: Asking

    func contains(_ number: Int) -> Bool {
        let chunk = chunks[number >> Self.chunkShift]
        if chunk.isEmpty { return false }
        let bit = number & (Self.chunkBits - 1)
        return chunk[Self.wordStart + bit / 64] >> UInt64(bit % 64) & 1 != 0
    }

    /// The first member in the range.
    func firstMember(in range: Range<Int>) -> Int? {
        if range.isEmpty { return nil }
        var chunk = range.lowerBound >> Self.chunkShift
        var start = range.lowerBound & (Self.chunkBits - 1)
        while true {
            if let bit = firstMember(inChunk: chunk, from: start) {
                let number = chunk << Self.chunkShift + bit
                return number < range.upperBound ? number : nil
            }
            guard let next = nextOccupied(from: chunk + 1), next << Self.chunkShift < range.upperBound else { return nil }
            (chunk, start) = (next, 0)
        }
    }

    private func firstMember(inChunk index: Int, from start: Int) -> Int? {
        let chunk = chunks[index]
        if chunk.isEmpty { return nil }
        let first = start / 64
        let bits = chunk[Self.wordStart + first] & (.max << UInt64(start % 64))
        if bits != 0 { return first * 64 + bits.trailingZeroBitCount }
        // Words behind the first, by the summary.
        let next = first + 1
        if next == Self.wordCount { return nil }
        var group = next / 64
        var summary = chunk[Self.summaryStart + group] & (.max << UInt64(next % 64))
        while summary == 0 {
            group += 1
            if group == Self.wordCount / 64 { return nil }
            summary = chunk[Self.summaryStart + group]
        }
        let word = group * 64 + summary.trailingZeroBitCount
        return word * 64 + chunk[Self.wordStart + word].trailingZeroBitCount
    }

    /// The first chunk at or behind `start` that has members: up the levels until one has a bit further on, and down again.
    private func nextOccupied(from start: Int) -> Int? {
        if start >= chunks.count { return nil }
        var index = start
        for level in occupied.indices {
            let word = index / 64
            if word >= occupied[level].count { return nil }
            let bits = occupied[level][word] & (.max << UInt64(index % 64))
            if bits != 0 {
                var found = word * 64 + bits.trailingZeroBitCount
                for below in occupied.indices.prefix(level).reversed() { found = found * 64 + occupied[below][found].trailingZeroBitCount }
                return found
            }
            index = word + 1
        }
        return nil
    }

    /// The first number in the range that is no member.
    func firstGap(in range: Range<Int>) -> Int? {
        var position = range.lowerBound
        while position < range.upperBound {
            let chunk = chunks[position >> Self.chunkShift]
            let base = position.roundedDown(toPowerOfTwo: Self.chunkBits)
            if chunk.isEmpty { return position }
            if chunk[0] < UInt64(Self.chunkBits) {
                for word in (position - base) / 64..<Self.wordCount {
                    var gaps = ~chunk[Self.wordStart + word]
                    if word == (position - base) / 64 { gaps &= .max << UInt64(position % 64) }
                    if gaps == 0 { continue }
                    let number = base + word * 64 + gaps.trailingZeroBitCount
                    return number < range.upperBound ? number : nil
                }
            }
            position = base + Self.chunkBits
        }
        return nil
    }

    /// How many members lie in the range.
    func count(in range: Range<Int>) -> Int {
        var total = 0
        var position = range.lowerBound
        while let chunk = position < range.upperBound ? nextOccupied(from: position >> Self.chunkShift) : nil {
            let base = chunk << Self.chunkShift
            let (start, end) = (max(position, base), min(range.upperBound, base + Self.chunkBits))
            if start >= end { break }
            if end - start == Self.chunkBits {
                total += memberCount(chunk)
            } else {
                Self.forEachWord(start - base..<end - base) { word, mask in total += (chunks[chunk][Self.wordStart + word] & mask).nonzeroBitCount }
            }
            position = base + Self.chunkBits
        }
        return total
    }

    // MARK: As words

    /// The members among the 64 numbers from `64 * index` on, the lowest in the lowest bit.
    func word(_ index: Int) -> UInt64 {
        let chunk = chunks[index / Self.wordCount]
        return chunk.isEmpty ? 0 : chunk[Self.wordStart + index % Self.wordCount]
    }

    /// Adds members as `word` gives them. Bits for numbers at or beyond the bound are ignored.
    mutating func insert(_ bits: UInt64, word index: Int) {
        let left = bitCount - index * 64
        let valid = left >= 64 ? bits : bits & ((1 << UInt64(max(left, 0))) - 1)
        if valid == 0 { return }
        let chunk = index / Self.wordCount
        let old = memberCount(chunk)
        if old == 0 {
            chunks[chunk] = [UInt64](repeating: 0, count: Self.wordStart + Self.wordCount)
            markOccupied(chunk)
        }
        if old == Self.chunkBits { return }
        Self.add(valid, toWord: index % Self.wordCount, &chunks[chunk])
        count += memberCount(chunk) - old
    }
}

extension Int {
    fileprivate func dividedUp(by size: Int) -> Int { (self + size - 1) / size }
    fileprivate func roundedDown(toPowerOfTwo size: Int) -> Int { self & ~(size - 1) }
}
