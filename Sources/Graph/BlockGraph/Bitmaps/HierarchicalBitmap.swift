package import StrataBase

/// Which parts of a disk are dirty: a bit for each `granularity` bytes. A value: copies are cheap, and share what neither has changed.
package struct HierarchicalBitmap: Sendable, Equatable {
    /// What one bit may stand for, in bytes; powers of two.
    package static let granularities = 512...(1 << 31)

    /// The size of the disk in bytes.
    package private(set) var byteCount: Int
    /// How many bytes one bit stands for.
    package let granularity: Int
    private let shift: Int
    private var bits: SparseBits

    /// Nothing is dirty.
    /// - Throws: `.invalidArgument` for a granularity that cannot be; `.tooLarge` for more than 2^37 bits.
    package init(byteCount: Int, granularity: Int) throws(BlockError) {
        guard granularity.isPowerOfTwo, Self.granularities.contains(granularity) else {
            throw BlockError(.invalidArgument, "Granularity must be power of 2 and at least 512")
        }
        precondition(byteCount >= 0, "a disk has a size")
        try Self.checkSize(byteCount, granularity)
        self.byteCount = byteCount
        self.granularity = granularity
        shift = granularity.trailingZeroBitCount
        bits = SparseBits(bitCount: byteCount.dividedRoundingUp(by: granularity))
    }

    /// - Throws: `.tooLarge` for a disk that would take too many bits.
    package static func checkSize(_ byteCount: Int, _ granularity: Int) throws(BlockError) {
        if byteCount.dividedRoundingUp(by: granularity) <= SparseBits.maximumBitCount { return }
        throw BlockError(
            .tooLarge, "A dirty bitmap of granularity \(granularity) for \(byteCount) bytes would have more than \(SparseBits.maximumBitCount) bits",
            hint: "Choose a larger granularity.")
    }

    /// What one bit stands for unless somebody says otherwise: the image's clusters, but 4 KiB at least and 64 KiB at most.
    package static func defaultGranularity(clusterSize: Int?) -> Int {
        guard let clusterSize, clusterSize > 0 else { return 65536 }
        return max(4096, min(clusterSize, 65536))
    }

    /// The granules that a range touches; what lies beyond the disk is ignored.
    private func touched(_ range: GuestRange) -> Range<Int> {
        let end = min(range.end.rawValue, byteCount)
        let start = max(0, range.start.rawValue)
        return start >= end ? 0..<0 : start >> shift..<((end - 1) >> shift) + 1
    }

    /// The granules that lie wholly in a range; the last one of the disk may be shorter than the others.
    private func contained(_ range: GuestRange) -> Range<Int> {
        let end = range.end.rawValue >= byteCount ? bits.bitCount : max(0, range.end.rawValue) >> shift
        let start = max(0, range.start.rawValue).dividedRoundingUp(by: granularity)
        return start >= end ? 0..<0 : start..<end
    }

    // MARK: Changing

    /// Marks every granule that the range touches.
    package mutating func set(_ range: GuestRange) { bits.insert(touched(range)) }

    /// Unmarks every granule that lies wholly in the range.
    package mutating func clear(_ range: GuestRange) { bits.remove(contained(range)) }

    package mutating func setAll() { bits.insert(0..<bits.bitCount) }
    package mutating func clearAll() { bits = SparseBits(bitCount: bits.bitCount) }

    /// Marks what another bitmap of the same disk has marked, whatever its granularity.
    package mutating func merge(_ other: HierarchicalBitmap) {
        precondition(other.byteCount == byteCount, "bitmaps of one size are merged")
        if other.granularity == granularity { return bits.formUnion(other.bits) }
        var position = GuestOffset(0)
        let end = GuestOffset(byteCount)
        while let run = other.nextDirtyRange(in: GuestRange(position, byteCount: end - position)) {
            set(run)
            position = run.end
        }
    }

    /// Follows a disk that changes its size. What is added is not marked.
    /// - Throws: `.tooLarge`; nothing has changed then.
    package mutating func resize(to byteCount: Int) throws(BlockError) {
        try Self.checkSize(byteCount, granularity)
        self.byteCount = byteCount
        bits.resize(to: byteCount.dividedRoundingUp(by: granularity))
    }

    // MARK: Asking

    package var isEmpty: Bool { bits.isEmpty }

    /// How many granules are dirty.
    package var dirtyCount: Int { bits.count }
    /// The dirty granules in bytes. The last one of a disk counts whole, as QMP counts.
    package var dirtyByteCount: Int { bits.count << shift }
    /// The dirty bytes within a range that is cut to the disk.
    package func dirtyByteCount(in range: GuestRange) -> Int {
        let granules = touched(range)
        if granules.isEmpty { return 0 }
        var total = bits.count(in: granules) << shift
        // What sticks out of the range at either end.
        if bits.contains(granules.lowerBound) { total -= max(0, range.start.rawValue) - granules.lowerBound << shift }
        if bits.contains(granules.upperBound - 1) { total -= granules.upperBound << shift - min(range.end.rawValue, byteCount) }
        return total
    }

    /// - Precondition: the position lies on the disk.
    package func isDirty(at offset: GuestOffset) -> Bool {
        precondition(offset.rawValue >= 0 && offset.rawValue < byteCount, "a position on the disk")
        return bits.contains(offset.rawValue >> shift)
    }

    /// The first dirty byte in the range.
    package func nextDirty(in range: GuestRange) -> GuestOffset? {
        guard let granule = bits.firstMember(in: touched(range)) else { return nil }
        return max(range.start, GuestOffset(granule << shift))
    }

    /// The first clean byte in the range, which is cut to the disk.
    package func nextClean(in range: GuestRange) -> GuestOffset? {
        guard let granule = bits.firstGap(in: touched(range)) else { return nil }
        return max(range.start, GuestOffset(granule << shift))
    }

    /// The first run of dirty bytes in the range.
    /// - Parameter limit: the longest run to give, in bytes; at least 1.
    package func nextDirtyRange(in range: GuestRange, limit: Int = .max) -> GuestRange? {
        precondition(limit > 0, "a run has a length")
        guard let start = nextDirty(in: range) else { return nil }
        let last = min(range.end.rawValue, byteCount)
        let end = last - start.rawValue > limit ? start + limit : GuestOffset(last)
        let clean = nextClean(in: GuestRange(start, byteCount: end - start)) ?? end
        return GuestRange(start, byteCount: clean - start)
    }

    /// Whether a range begins dirty or clean, and how long it stays so.
    /// - Precondition: the range is not empty and lies on the disk.
    package func run(in range: GuestRange) -> (isDirty: Bool, byteCount: Int) {
        let isDirty = isDirty(at: range.start)
        let end = (isDirty ? nextClean(in: range) : nextDirty(in: range)) ?? range.end
        return (isDirty, end - range.start)
    }

    // MARK: As words

    /// How many 64-bit words the bits take.
    package var wordCount: Int { bits.bitCount.dividedRoundingUp(by: 64) }
    /// The bits of 64 granules, the first in the lowest bit.
    package func word(_ index: Int) -> UInt64 { bits.word(index) }
    /// Marks granules as `word` gives them; what lies beyond the disk is ignored.
    package mutating func mark(_ word: UInt64, at index: Int) { bits.insert(word, word: index) }

    /// What `x-debug-block-dirty-bitmap-sha256` tells: the digest of the words, little-endian.
    package var sha256: String {
        var digest = SHA256()
        for index in 0..<max(1, wordCount) { digest.update(littleEndian: index < wordCount ? word(index) : 0) }
        return digest.hexadecimal()
    }
}
