import Foundation
import QCOW2Testing
import StrataTesting

/// Random damage to the metadata of an image in a file.
enum ImageDamage {
    /// - Returns: what was done, for messages.
    static func apply(_ path: String, _ count: Int, _ random: inout SeededGenerator) throws -> [String] {
        var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        var history: [String] = []
        for _ in 0..<count { history.append(one(&bytes, &random)) }
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        return history
    }

    static func one(_ bytes: inout [UInt8], _ random: inout SeededGenerator) -> String {
        func word(_ offset: Int) -> UInt64 { offset + 8 <= bytes.count ? bytes[offset..<(offset + 8)].reduce(0) { $0 << 8 | UInt64($1) } : 0 }
        func put(_ value: UInt64, at offset: Int) {
            guard offset + 8 <= bytes.count else { return }
            for i in 0..<8 { bytes[offset + i] = UInt8(truncatingIfNeeded: value >> UInt64(56 - 8 * i)) }
        }
        let clusterSize = 1 << Int(word(16) & 0xff)
        let (l1, table, snapshots) = (Int(word(40)), Int(word(48)), Int(word(64)))
        let l1Count = Int(word(36) >> 32)
        let tables = (0..<l1Count).map { Int(word(l1 + 8 * $0) & 0x00ff_ffff_ffff_fe00) }.filter { $0 != 0 && $0 < bytes.count }
        let block = Int(word(table))
        guard let target = tables.randomElement(using: &random), block >= clusterSize, block + clusterSize <= bytes.count else { return "nothing" }
        // With subclusters an entry has two words.
        let hasSubclusters = bytes[7] == 3 && bytes[79] & 16 != 0
        let entrySize = hasSubclusters ? 16 : 8
        let used = (0..<clusterSize / entrySize).filter { word(target + entrySize * $0) != 0 }
        let number = used.randomElement(using: &random) ?? 0
        let entry = target + entrySize * number
        let isCompressed = word(entry) & 1 << 62 != 0
        let cluster = Int.random(in: 0..<min(100, clusterSize / 2), using: &random)
        let outside = UInt64((bytes.count / clusterSize + Int.random(in: 2...60, using: &random)) * clusterSize)
        switch Int.random(in: 0..<21, using: &random) {
        case 0: put(0, at: entry); return "entry \(number) cleared"
        case 1: put(word(entry) ^ 1 << 63, at: entry); return "entry \(number) flag turned"
        case 2: put(word(target + entrySize * (used.randomElement(using: &random) ?? 0)), at: entry); return "entry \(number) is another"
        case 3: put(1 << 63 | outside, at: entry); return "entry \(number) outside"
        case 4: bytes[block + 2 * cluster + 1] ^= 1; return "refcount \(cluster) turned"
        case 5: bytes[block + 2 * cluster + 1] &+= 3; return "refcount \(cluster) raised"
        case 6 where !isCompressed: put(word(entry) | 1 << 57, at: entry); return "entry \(number) reserved bit"
        case 7 where !isCompressed && clusterSize > 512: put(word(entry) | 0x200, at: entry); return "entry \(number) unaligned"
        case 8: put(1 << 62 | outside, at: entry); return "entry \(number) compressed outside"
        case 9:
            let index = Int.random(in: 0..<l1Count, using: &random)
            put(word(l1 + 8 * index) ^ 1 << 63, at: l1 + 8 * index)
            return "L1 entry \(index) flag turned"
        case 10:
            let index = Int.random(in: 0..<l1Count, using: &random)
            put(1 << 63 | outside, at: l1 + 8 * index)
            return "L1 entry \(index) outside"
        case 11:
            let index = Int.random(in: 0..<l1Count, using: &random)
            if word(l1 + 8 * index) != 0 { put(word(l1 + 8 * index) | 1 << 58, at: l1 + 8 * index) }
            return "L1 entry \(index) reserved bit"
        case 12: put(outside, at: table); return "refcount block 0 outside"
        case 13: put(UInt64(block), at: table + 8); return "refcount block 1 is 0"
        case 14: put(0, at: table); return "refcount block 0 missing"
        case 15:
            for i in 0..<clusterSize { bytes[block + i] = 0 }
            return "refcount block 0 zeroed"
        case 16: bytes.removeLast(min(bytes.count / 4, Int.random(in: 1...5, using: &random) * clusterSize)); return "cut to \(bytes.count)"
        case 17 where snapshots != 0 && snapshots + 40 < bytes.count: bytes[snapshots + 8] = 1; return "snapshot L1 too large"
        case 18 where clusterSize > 512: put(word(table) | 0x200, at: table); return "refcount block 0 unaligned"
        case 19 where hasSubclusters: put(random.next(), at: entry + 8); return "subclusters of entry \(number)"
        case 20: put(word(entry) ^ 1 << 62, at: entry); return "entry \(number) compressed or no more"
        default: bytes[block + 2 * cluster + 1] = 0; return "refcount \(cluster) zeroed"
        }
    }
}
