import Glibc
import StrataBase

/// Memory for I/O that its holder owns: aligned, so that it suits O_DIRECT, and pooled per thread.
///
/// Contents are undefined until written. One holder at a time uses the bytes; to hand them to a request pass `vector` and keep the buffer
/// alive until the call returns (`IOVector` states the rule).
@safe package final class IOBuffer: @unchecked Sendable {  // unchecked: one holder at a time, as the comment demands
    /// Every buffer starts at a multiple of this many bytes: a page, which satisfies every O_DIRECT file system.
    package static let alignment = 4096

    package let byteCount: Int
    private let start: UnsafeMutableRawPointer
    /// The size of the allocation, which is what the pool sorts by.
    private let capacity: Int

    /// - Parameter byteCount: at least 0.
    package init(byteCount: Int) {
        precondition(byteCount >= 0, "a buffer has a length")
        self.byteCount = byteCount
        capacity = BufferPool.capacity(for: byteCount)
        unsafe start = BufferPool.take(capacity: capacity)
    }

    /// A buffer of zero bytes.
    package convenience init(zeroed byteCount: Int) {
        self.init(byteCount: byteCount)
        unsafe memset(start, 0, byteCount)
    }

    deinit { unsafe BufferPool.give(start, capacity: capacity) }

    /// The whole buffer.
    package var vector: IOVector { unsafe IOVector(start, byteCount: byteCount) }

    /// A part of it. - Precondition: it lies inside.
    package func vector(at offset: Int, byteCount count: Int) -> IOVector { vector.slice(at: offset, byteCount: count) }

    package func withBytes<R, E>(_ body: (RawSpan) throws(E) -> R) throws(E) -> R {
        // SAFETY: `start` has `byteCount` bytes for as long as self lives, and self is alive for this call.
        try body(unsafe UnsafeRawBufferPointer(start: start, count: byteCount).bytes)
    }

    package func withMutableBytes<R, E>(_ body: (inout MutableRawSpan) throws(E) -> R) throws(E) -> R {
        // SAFETY: as above; the single holder is the one that calls.
        var bytes = unsafe UnsafeMutableRawBufferPointer(start: start, count: byteCount).mutableBytes
        return try body(&bytes)
    }

    /// A part of the bytes. - Precondition: it lies inside.
    package func withMutableBytes<R, E>(at offset: Int, byteCount count: Int, _ body: (inout MutableRawSpan) throws(E) -> R) throws(E) -> R {
        precondition(offset >= 0 && count >= 0 && offset <= byteCount && count <= byteCount &- offset, "a part lies inside its buffer")
        // SAFETY: the precondition, and as above.
        var bytes = unsafe UnsafeMutableRawBufferPointer(start: start + offset, count: count).mutableBytes
        return try body(&bytes)
    }
}

/// Free buffers of the current thread's I/O context, by power-of-two size. Off a context it is plain allocation.
enum BufferPool {
    static let smallest = 4096
    /// Larger ones go back to the allocator at once.
    static let largest = 4 << 20
    static let classes = 11
    /// At most this many free bytes are kept per size.
    static let keptBytesPerClass = 8 << 20

    static func capacity(for byteCount: Int) -> Int {
        if byteCount <= smallest { return smallest }
        if byteCount > largest { return byteCount.roundedUp(to: smallest) }
        return 1 << (Int.bitWidth - (byteCount - 1).leadingZeroBitCount)
    }

    static func take(capacity: Int) -> UnsafeMutableRawPointer {
        if capacity <= largest, let context = IOContext.current, let reused = unsafe context.freeBuffers.take(capacity: capacity) { return unsafe reused }
        return UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: IOBuffer.alignment)
    }

    static func give(_ start: UnsafeMutableRawPointer, capacity: Int) {
        if capacity <= largest, let context = IOContext.current, unsafe context.freeBuffers.give(start, capacity: capacity) { return }
        unsafe start.deallocate()
    }
}

/// The free lists of one context. Used by its own thread only. The link to the next free buffer lies in the buffer itself.
@safe struct FreeBuffers {
    private var heads: InlineArray<11, UnsafeMutableRawPointer?> = unsafe .init(repeating: nil)
    private var counts: InlineArray<11, Int> = .init(repeating: 0)

    private static func index(of capacity: Int) -> Int { capacity.trailingZeroBitCount - BufferPool.smallest.trailingZeroBitCount }

    mutating func take(capacity: Int) -> UnsafeMutableRawPointer? {
        let index = Self.index(of: capacity)
        guard let first = unsafe heads[index] else { return nil }
        // SAFETY: `give` stored the link there, and nobody has had the buffer since.
        unsafe heads[index] = unsafe first.load(as: UnsafeMutableRawPointer?.self)
        counts[index] -= 1
        return unsafe first
    }

    mutating func give(_ start: UnsafeMutableRawPointer, capacity: Int) -> Bool {
        let index = Self.index(of: capacity)
        if counts[index] * capacity >= BufferPool.keptBytesPerClass { return false }
        unsafe start.storeBytes(of: heads[index], as: UnsafeMutableRawPointer?.self)
        unsafe heads[index] = unsafe start
        counts[index] += 1
        return true
    }

    mutating func releaseAll() {
        for index in 0..<BufferPool.classes {
            while let buffer = unsafe take(capacity: BufferPool.smallest << index) { unsafe buffer.deallocate() }
        }
    }
}
