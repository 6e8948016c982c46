// The same as for big-endian integers (BigEndian.swift), for the few formats that are little-endian.

extension RawSpan {
    /// The little-endian integer at `offset`, where the caller has already established that it lies inside the span.
    /// - Precondition: `0 <= offset` and `offset + size <= byteCount`.
    @inlinable
    package func checkedLittleEndian<I: FixedWidthInteger & BitwiseCopyable>(at offset: Int, as _: I.Type = I.self) -> I {
        precondition(offset >= 0 && byteCount - offset >= MemoryLayout<I>.size, "a field lies inside its structure")
        // SAFETY: the precondition above.
        return I(littleEndian: unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: I.self))
    }
}

extension MutableRawSpan {
    /// Stores `value` little-endian at `offset` (bytes from the start of the span).
    /// - Precondition: the integer lies wholly inside the span; encoders size their own buffers.
    @inlinable
    package mutating func setLittleEndian<I: FixedWidthInteger & BitwiseCopyable>(_ value: I, at offset: Int) {
        precondition(offset >= 0 && byteCount - offset >= MemoryLayout<I>.size, "a field lies inside its structure")
        // SAFETY: the precondition above.
        storeBytes(of: value.littleEndian, toByteOffset: offset, as: I.self)
    }
}
