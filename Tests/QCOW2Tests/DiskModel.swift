import BlockGraph
import QCOW2Testing
import StrataBase
import StrataTesting

/// The disk as a guest sees it, as a plain byte array, with random operations that change both it and a real image.
struct DiskModel: Sendable {
    var bytes: [UInt8]
    var random: SeededGenerator
    /// Where requests like to begin and end.
    var clusterSize: Int
    /// False where a discard may leave the data as it is: version 2 images with a backing file.
    var discardsToZero = true
    /// What discards are multiples of, in bytes; clusters where nothing else is said.
    var discardUnit: Int?

    init(size: Int, clusterSize: Int, seed: UInt64) {
        bytes = [UInt8](repeating: 0, count: size)
        random = SeededGenerator(seed: seed)
        self.clusterSize = clusterSize
    }

    /// A random range: unaligned, sector aligned or cluster aligned, small or spanning several clusters.
    mutating func range(alignment: Int? = nil) -> Range<Int> {
        let unit = alignment ?? [1, 512, 4096, clusterSize].randomElement(using: &random) ?? 1
        let start = Int.random(in: 0..<bytes.count, using: &random).roundedDown(to: unit)
        let longest = [512, 4096, clusterSize, 3 * clusterSize].randomElement(using: &random) ?? 512
        let count = max(unit, Int.random(in: 1...max(longest, unit), using: &random).roundedDown(to: unit))
        return start..<min(bytes.count, start + count)
    }

    /// Bytes that are never zero, cheap to make (debug builds copy a table faster than they compute), and different for each write.
    mutating func data(_ count: Int) -> [UInt8] {
        var data: [UInt8] = []
        data.reserveCapacity(count)
        while data.count < count {
            let start = Int.random(in: 0..<4096, using: &random)
            data += Self.pattern[start..<min(Self.pattern.count, start + count - data.count)]
        }
        return data
    }

    private static let pattern: [UInt8] = (0..<(1 << 16)).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 / 251) | 1 }

    /// One random operation on both. Discards are aligned inwards by the driver: what they leave alone keeps its data.
    mutating func step(_ disk: BlockBackend) async throws -> String {
        switch Int.random(in: 0..<20, using: &random) {
        case 0..<9:
            let range = range()
            let data = data(range.count)
            bytes.replaceSubrange(range, with: data)
            try await disk.writeBytes(data, at: range.lowerBound)
            return "write \(range)"
        case 9..<12:
            let range = range()
            bytes.replaceSubrange(range, with: [UInt8](repeating: 0, count: range.count))
            let unmap = Bool.random(using: &random)
            try await disk.writeZeroes(GuestRange(GuestOffset(range.lowerBound), byteCount: range.count), flags: unmap ? .mayUnmap : [])
            return "zero \(range) \(unmap)"
        case 12..<14 where discardsToZero:
            let range = range(alignment: discardUnit ?? clusterSize)
            bytes.replaceSubrange(range, with: [UInt8](repeating: 0, count: range.count))
            try await disk.discard(GuestRange(GuestOffset(range.lowerBound), byteCount: range.count))
            return "discard \(range)"
        case 14:
            try await disk.flush()
            return "flush"
        default:
            let range = range()
            let read = try await disk.readBytes(at: range.lowerBound, range.count)
            if let difference = firstDifference(read, Array(bytes[range])) { throw ToolFailure(description: "read \(range) differs \(difference)") }
            return "read \(range)"
        }
    }
}
