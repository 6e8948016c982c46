extension [UInt8] {
    /// Stores `value` big-endian at `offset`.
    /// - Precondition: it lies inside the array; encoders size their own buffers.
    mutating func setBigEndian<I: FixedWidthInteger>(_ value: I, at offset: Int) {
        let size = I.bitWidth / 8
        for position in 0..<size { self[offset + position] = UInt8(truncatingIfNeeded: value >> I((size - 1 - position) * 8)) }
    }
}
