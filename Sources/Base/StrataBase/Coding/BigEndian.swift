/// Why bytes could not be decoded. The caller adds where they came from and turns this into a `BlockError`.
@frozen @usableFromInline
package enum DecodingFailure: Error, Hashable, Sendable {
    /// The field ends at byte `needed`; only `available` bytes are there.
    case truncated(needed: Int, available: Int)
    /// A field that the specification wants zero is not.
    case reservedBitsSet(field: String)
    /// A value that the specification forbids; the text names the field and the value.
    case invalid(String)
}

extension DecodingFailure: CustomStringConvertible {
    @usableFromInline package var description: String {
        switch self {
        case .truncated(let needed, let available): "data ends at byte \(available), byte \(needed) is needed"
        case .reservedBitsSet(let field): "reserved bits are set in \(field)"
        case .invalid(let what): what
        }
    }
}

extension RawSpan {
    /// The big-endian integer at `offset` (bytes from the start of the span).
    /// - Throws: `.truncated` when it does not lie wholly inside the span.
    @inlinable
    package func bigEndian<I: FixedWidthInteger & BitwiseCopyable>(at offset: Int, as _: I.Type = I.self) throws(DecodingFailure) -> I {
        let (end, overflow) = offset.addingReportingOverflow(MemoryLayout<I>.size)
        guard offset >= 0, !overflow, end <= byteCount else { throw .truncated(needed: overflow ? .max : end, available: byteCount) }
        // SAFETY: the range was checked above, and every bit pattern is a valid integer.
        return I(bigEndian: unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: I.self))
    }

    /// The big-endian integer at `offset`, where the caller has already established that it lies inside the span.
    /// - Precondition: `0 <= offset` and `offset + size <= byteCount`.
    @inlinable
    package func checkedBigEndian<I: FixedWidthInteger & BitwiseCopyable>(at offset: Int, as _: I.Type = I.self) -> I {
        precondition(offset >= 0 && byteCount - offset >= MemoryLayout<I>.size, "a field lies inside its structure")
        // SAFETY: the precondition above.
        return I(bigEndian: unsafe unsafeLoadUnaligned(fromByteOffset: offset, as: I.self))
    }
}

extension MutableRawSpan {
    /// Stores `value` big-endian at `offset` (bytes from the start of the span).
    /// - Precondition: the integer lies wholly inside the span; encoders size their own buffers.
    @inlinable
    package mutating func setBigEndian<I: FixedWidthInteger & BitwiseCopyable>(_ value: I, at offset: Int) {
        precondition(offset >= 0 && byteCount - offset >= MemoryLayout<I>.size, "a field lies inside its structure")
        // SAFETY: the precondition above.
        storeBytes(of: value.bigEndian, toByteOffset: offset, as: I.self)
    }
}
