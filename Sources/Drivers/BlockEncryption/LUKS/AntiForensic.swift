import IOCore
import StrataBase

/// Spreads a key over many bytes, so that losing a few of them loses the key: what a disk has remapped by itself tells nothing then.
/// Source: LUKS On-Disk Format Specification 1.2.3, section 2.4 ("Anti-forensic splitter").
struct AntiForensic {
    let hash: HashAlgorithm
    let stripes: Int

    /// - Returns: `stripes` times as many bytes as the key has.
    func split(_ key: [UInt8]) throws(BlockError) -> [UInt8] {
        var spread = try CipherLibrary.randomBytes(key.count * (stripes - 1))
        let mixed = try mix(spread, key.count)
        spread += zip(mixed, key).map { $0 ^ $1 }
        return spread
    }

    /// The key of `byteCount` bytes back.
    func merge(_ spread: [UInt8], byteCount: Int) throws(BlockError) -> [UInt8] {
        let last = byteCount * (stripes - 1)
        let mixed = try mix(Array(spread[..<last]), byteCount)
        return zip(mixed, spread[last..<last + byteCount]).map { $0 ^ $1 }
    }

    /// All stripes in one.
    private func mix(_ stripes: [UInt8], _ size: Int) throws(BlockError) -> [UInt8] {
        var block = [UInt8](repeating: 0, count: size)
        for start in stride(from: 0, to: stripes.count, by: size) {
            for index in 0..<size { block[index] ^= stripes[start + index] }
            block = try diffuse(block)
        }
        return block
    }

    /// Lets every bit of a piece as long as a digest depend on all of that piece.
    private func diffuse(_ block: [UInt8]) throws(BlockError) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(block.count)
        var number: UInt32 = 0
        for start in stride(from: 0, to: block.count, by: hash.digestSize) {
            let part = block[start..<min(start + hash.digestSize, block.count)]
            result += try hash.digest(of: number.bigEndianBytes + part).prefix(part.count)
            number += 1
        }
        return result
    }
}
