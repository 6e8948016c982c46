/// CRC-32C, the checksum with Castagnoli's polynomial (RFC 3720, appendix B.4), lowest bit first.
package enum CRC32C {
    private static let table: [UInt32] = (0..<256 as Range<UInt32>).map { byte in
        (0..<8).reduce(byte) { value, _ in value >> 1 ^ (value & 1 == 1 ? 0x82f6_3b78 : 0) }
    }

    /// - Parameter blank: bytes that count as zeroes: a structure's own checksum.
    package static func checksum(of bytes: RawSpan, blank: Range<Int>) -> UInt32 {
        let table = table
        var sum = UInt32.max
        for index in 0..<bytes.byteCount {
            let byte: UInt8 = blank.contains(index) ? 0 : bytes.checkedBigEndian(at: index)
            sum = sum >> 8 ^ table[Int(UInt8(truncatingIfNeeded: sum) ^ byte)]
        }
        return ~sum
    }
}
