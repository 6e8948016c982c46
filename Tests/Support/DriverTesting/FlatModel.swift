package import BlockGraph
import IOCore
package import StrataBase
package import StrataTesting

/// A disk as a plain array of bytes, with random requests that change it and a real one alike.
package struct FlatModel: Sendable {
    package var bytes: [UInt8]
    package var random: SeededGenerator
    /// Where requests like to begin and end, besides anywhere.
    private let favourites: [Int]
    /// For disks that forget: they read as zeroes whatever is written.
    private let forgets: Bool
    /// What was done last, for messages.
    package private(set) var history: [String] = []

    package init(byteCount: Int, seed: UInt64, favourites: [Int] = [512, 4096, 65536], forgets: Bool = false) {
        bytes = [UInt8](repeating: 0, count: byteCount)
        random = SeededGenerator(seed: seed)
        self.favourites = favourites
        self.forgets = forgets
    }

    /// A range inside the disk: anywhere, or at multiples of a favourite.
    package mutating func range() -> Range<Int> {
        let unit = ([1, 1, 1] + favourites).randomElement(using: &random) ?? 1
        let start = Int.random(in: 0..<bytes.count, using: &random) / unit * unit
        let longest = ([1, 100, 5000, 20_000] + favourites.map { $0 + 1 }).randomElement(using: &random) ?? 1
        let count = max(1, Int.random(in: 1...max(longest, unit), using: &random) / unit * unit)
        return start..<min(bytes.count, start + count)
    }

    /// Bytes that are never zero and differ from write to write.
    package mutating func data(_ count: Int) -> [UInt8] {
        let start = Int.random(in: 0..<200, using: &random), step = Int.random(in: 0..<3, using: &random)
        return (0..<count).map { UInt8(truncatingIfNeeded: (start + $0 * step) % 255 + 1) }
    }

    /// One random request on both.
    /// - Returns: what is wrong, or nil.
    package mutating func step(on disk: BlockBackend) async throws -> String? {
        let range = range()
        let guestRange = GuestRange(GuestOffset(range.lowerBound), byteCount: range.count)
        switch Int.random(in: 0..<20, using: &random) {
        case 0..<8:
            history.append("write \(range)")
            let data = data(range.count)
            let flags: RequestFlags = Int.random(in: 0..<6, using: &random) == 0 ? .forceUnitAccess : []
            try await disk.writeArray(data, at: range.lowerBound, flags: flags, inPieces: Bool.random(using: &random))
            if !forgets { bytes.replaceSubrange(range, with: data) }
        case 8..<11:
            let flags: RequestFlags = [[], .mayUnmap, [.mayUnmap, .forceUnitAccess], .noFallback].randomElement(using: &random) ?? []
            history.append("zero \(range) \(flags.rawValue)")
            do throws(BlockError) {
                try await disk.writeZeroes(guestRange, flags: flags)
            } catch {
                guard error.code == .unsupported, flags.contains(.noFallback) else { throw error }
                // Refused after a part of it was done, perhaps: each byte is as before or zero.
                return try await adopt(range, from: disk)
            }
            bytes.replaceSubrange(range, with: [UInt8](repeating: 0, count: range.count))
        case 11..<13:
            history.append("discard \(range)")
            try await disk.discard(guestRange)
            return try await adopt(range, from: disk)
        case 13:
            history.append("flush")
            try await disk.flush()
        default:
            history.append("read \(range)")
            let found = try await disk.readArray(at: range.lowerBound, range.count)
            if let difference = firstDifference(found, Array(bytes[range])) { return "read \(range) differs \(difference) after \(history.suffix(12))" }
        }
        return nil
    }

    /// After something that may or may not have zeroed a range.
    private mutating func adopt(_ range: Range<Int>, from disk: BlockBackend) async throws -> String? {
        let found = try await disk.readArray(at: range.lowerBound, range.count)
        for (index, byte) in zip(range, found) where byte != bytes[index] && byte != 0 {
            return "byte \(index) became \(byte), neither what it was (\(bytes[index])) nor zero, after \(history.suffix(12))"
        }
        bytes.replaceSubrange(range, with: found)
        return nil
    }

    /// Compares the whole disk.
    package func difference(to disk: BlockBackend) async throws -> String? {
        if disk.length < bytes.count { return "the disk has \(disk.length) bytes and not \(bytes.count)" }
        let found = try await disk.readArray(at: 0, bytes.count)
        return firstDifference(found, bytes).map { "\($0) after \(history.suffix(12))" }
    }
}

/// Where two byte strings differ first, for messages.
package func firstDifference(_ found: [UInt8], _ expected: [UInt8]) -> String? {
    if found == expected { return nil }
    if found.count != expected.count { return "in length: \(found.count) and not \(expected.count)" }
    let position = found.indices.first { found[$0] != expected[$0] } ?? 0
    return "at byte \(position): \(found[position]) and not \(expected[position])"
}

extension BlockBackend {
    /// Reads the fast way if there is one, else the other, as an export does.
    package func readArray(at offset: Int, _ count: Int) async throws(BlockError) -> [UInt8] {
        let buffer = IOBuffer(byteCount: count)
        defer { withExtendedLifetime(buffer) {} }
        buffer.vector.fill(with: 0xdb)
        if !tryRead(buffer.vector, at: GuestOffset(offset)) { try await read(buffer.vector, at: GuestOffset(offset)) }
        return buffer.copyToArray()
    }

    package func writeArray(_ bytes: [UInt8], at offset: Int, flags: RequestFlags = [], inPieces: Bool = false) async throws(BlockError) {
        let buffer = IOBuffer(copying: bytes)
        defer { withExtendedLifetime(buffer) {} }
        let half = bytes.count / 2
        guard inPieces, half > 0 else {
            if flags.isEmpty, tryWrite(buffer.vector, at: GuestOffset(offset)) { return }
            return try await write(buffer.vector, at: GuestOffset(offset), flags: flags)
        }
        let pieces = VectorList([buffer.vector(at: 0, byteCount: half), buffer.vector(at: half, byteCount: bytes.count - half)])
        defer { withExtendedLifetime(pieces) {} }
        if flags.isEmpty, tryWrite(pieces.vector, at: GuestOffset(offset)) { return }
        try await write(pieces.vector, at: GuestOffset(offset), flags: flags)
    }
}
