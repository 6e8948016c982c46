/// A position in a byte space. Two spaces exist so that the compiler refuses to mix them: what a guest addresses (`GuestOffset`)
/// and where a byte lies in a file (`HostOffset`).
///
/// A valid position is never negative: the initializers that decode untrusted bytes check that, arithmetic inside the product relies on it.
@usableFromInline package protocol ByteOffset: Comparable, Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
    /// Bytes from the start of the space.
    var rawValue: Int { get }
    init(_ rawValue: Int)
}

extension ByteOffset {
    @inlinable package static func < (a: Self, b: Self) -> Bool { a.rawValue < b.rawValue }
    @inlinable package static func + (a: Self, byteCount: Int) -> Self { Self(a.rawValue + byteCount) }
    @inlinable package static func - (a: Self, byteCount: Int) -> Self { Self(a.rawValue - byteCount) }
    /// The distance in bytes.
    @inlinable package static func - (a: Self, b: Self) -> Int { a.rawValue - b.rawValue }
    @inlinable package static func += (a: inout Self, byteCount: Int) { a = a + byteCount }

    /// Whether the position is a multiple of `alignment` (a power of two, in bytes).
    @inlinable package func isAligned(to alignment: Int) -> Bool { rawValue.isAligned(to: alignment) }
    @inlinable package func roundedDown(to alignment: Int) -> Self { Self(rawValue.roundedDown(to: alignment)) }
    @inlinable package func roundedUp(to alignment: Int) -> Self { Self(rawValue.roundedUp(to: alignment)) }

    @usableFromInline package var description: String { "0x" + String(rawValue, radix: 16) }
}

/// A position on a node as its parents see it: what a guest, an export or the layer above addresses.
@frozen
@usableFromInline package struct GuestOffset: ByteOffset {
    @usableFromInline package let rawValue: Int
    @inlinable package init(_ rawValue: Int) { self.rawValue = rawValue }
}

/// A position in the file below a format driver: where a cluster or a table lies.
@frozen
@usableFromInline package struct HostOffset: ByteOffset {
    @usableFromInline package let rawValue: Int
    @inlinable package init(_ rawValue: Int) { self.rawValue = rawValue }

    /// The same byte as the file's node sees it: one driver's host offset is the next driver's guest offset.
    @inlinable package var asGuest: GuestOffset { GuestOffset(rawValue) }
}

extension GuestOffset {
    /// The same byte for a driver that maps its guest space one to one onto its file.
    @inlinable package var asHost: HostOffset { HostOffset(rawValue) }
}

extension Int {
    /// Whether the value is a multiple of `alignment`, a power of two.
    @inlinable package func isAligned(to alignment: Int) -> Bool { self & (alignment &- 1) == 0 }
    @inlinable package func roundedDown(to alignment: Int) -> Int { self & ~(alignment &- 1) }
    /// - Precondition: the result fits; untrusted values are range checked before they get here.
    @inlinable package func roundedUp(to alignment: Int) -> Int { (self + (alignment &- 1)) & ~(alignment &- 1) }
    @inlinable package var isPowerOfTwo: Bool { self > 0 && self & (self &- 1) == 0 }
    /// The number of pieces of `size` bytes that cover this many bytes.
    @inlinable package func dividedRoundingUp(by size: Int) -> Int { self / size + (self % size == 0 ? 0 : 1) }
}

/// A half-open range of guest bytes.
@frozen
@usableFromInline package struct GuestRange: Hashable, Sendable, BitwiseCopyable {
    @usableFromInline package var start: GuestOffset
    /// Bytes; may be zero.
    @usableFromInline package var byteCount: Int

    @inlinable
    package init(_ start: GuestOffset, byteCount: Int) {
        self.start = start
        self.byteCount = byteCount
    }

    @inlinable package var end: GuestOffset { start + byteCount }
    @inlinable package var isEmpty: Bool { byteCount == 0 }

    @inlinable
    package func overlaps(_ other: GuestRange) -> Bool { start < other.end && other.start < end }

    @inlinable
    package func contains(_ offset: GuestOffset) -> Bool { start <= offset && offset < end }

    /// Whether both ends are multiples of `alignment`, a power of two.
    @inlinable
    package func isAligned(to alignment: Int) -> Bool { (start.rawValue | byteCount).isAligned(to: alignment) }
}
