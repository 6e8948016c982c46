/// SHA-256. Source: FIPS 180-4, sections 4.1.2, 5 and 6.2. For identifying content, not for secrets.
package struct SHA256: Sendable {
    private var hash: [UInt32] = [
        0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
    ]
    /// The message schedule; its first 16 words are the block that is being filled.
    private var schedule = [UInt32](repeating: 0, count: 64)
    private var filledBytes = 0
    private var byteCount: UInt64 = 0

    package init() {}

    package mutating func update(_ byte: UInt8) {
        if filledBytes & 3 == 0 { schedule[filledBytes >> 2] = 0 }
        schedule[filledBytes >> 2] |= UInt32(byte) << UInt32(24 - 8 * (filledBytes & 3))
        filledBytes += 1
        byteCount += 1
        if filledBytes == 64 { compress() }
    }

    package mutating func update(_ bytes: some Sequence<UInt8>) { for byte in bytes { update(byte) } }

    /// Eight bytes, the lowest first.
    package mutating func update(littleEndian word: UInt64) {
        guard filledBytes & 7 == 0 else {
            for shift in 0..<8 as Range<UInt64> { update(UInt8(truncatingIfNeeded: word >> (8 * shift))) }
            return
        }
        schedule[filledBytes >> 2] = UInt32(truncatingIfNeeded: word).byteSwapped
        schedule[filledBytes >> 2 + 1] = UInt32(truncatingIfNeeded: word >> 32).byteSwapped
        filledBytes += 8
        byteCount += 8
        if filledBytes == 64 { compress() }
    }

    /// The digest of everything so far, in 64 lower-case digits.
    package func hexadecimal() -> String {
        var copy = self
        let bits = byteCount * 8
        copy.update(0x80)
        while copy.filledBytes != 56 { copy.update(0) }
        for shift in (0..<8 as Range<UInt64>).reversed() { copy.update(UInt8(truncatingIfNeeded: bits >> (8 * shift))) }
        return copy.hash.map { word in
            let digits = String(word, radix: 16)
            return String(repeating: "0", count: 8 - digits.utf8.count) + digits
        }.joined()
    }

    private mutating func compress() {
        for index in 16..<64 {
            let (a, b) = (schedule[index - 15], schedule[index - 2])
            let small0 = Self.rotate(a, 7) ^ Self.rotate(a, 18) ^ a >> 3
            let small1 = Self.rotate(b, 17) ^ Self.rotate(b, 19) ^ b >> 10
            schedule[index] = schedule[index - 16] &+ small0 &+ schedule[index - 7] &+ small1
        }
        var (a, b, c, d, e, f, g, h) = (hash[0], hash[1], hash[2], hash[3], hash[4], hash[5], hash[6], hash[7])
        for index in 0..<64 {
            let big1 = Self.rotate(e, 6) ^ Self.rotate(e, 11) ^ Self.rotate(e, 25)
            let first = h &+ big1 &+ ((e & f) ^ (~e & g)) &+ Self.constants[index] &+ schedule[index]
            let big0 = Self.rotate(a, 2) ^ Self.rotate(a, 13) ^ Self.rotate(a, 22)
            let second = big0 &+ ((a & b) ^ (a & c) ^ (b & c))
            (h, g, f, e, d, c, b, a) = (g, f, e, d &+ first, c, b, a, first &+ second)
        }
        for (index, value) in [a, b, c, d, e, f, g, h].enumerated() { hash[index] &+= value }
        filledBytes = 0
    }

    private static func rotate(_ word: UInt32, _ count: UInt32) -> UInt32 { word >> count | word << (32 - count) }

    private static let constants: [UInt32] = [
        0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
        0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
        0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
        0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
        0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
        0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
        0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
        0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
    ]
}
