package import Glibc
import StrataBase

/// A view of memory that a request reads into or writes from: one run of bytes, or a list of runs (scatter/gather).
///
/// It does not own the memory. The rule that makes it safe: **whoever makes an `IOVector` keeps the memory alive, and does not touch it in a
/// conflicting way, until the call it passed the vector to returns** (for an `async` call: until the `await` is over). Callees never store one
/// beyond their own return. Requests are structured, so a buffer held in a local across the `await` is all it takes.
///
/// 32 bytes, trivially copied: passing one down a chain of drivers costs no reference counting.
@frozen @safe
package struct IOVector: @unchecked Sendable, BitwiseCopyable {  // unchecked: the ownership rule above, which the compiler cannot see
    /// The run itself when `segmentCount` is 0, else an array of `iovec`.
    @usableFromInline let base: UnsafeMutableRawPointer
    /// 0: contiguous. Otherwise how many `iovec` lie at `base`.
    @usableFromInline let segmentCount: Int32
    /// Bytes to skip at the start of the first segment (list form only).
    @usableFromInline let skipped: Int
    /// The length of the whole view in bytes.
    package let byteCount: Int

    @inlinable
    init(base: UnsafeMutableRawPointer, segmentCount: Int32, skipped: Int, byteCount: Int) {
        unsafe self.base = unsafe base
        self.segmentCount = segmentCount
        self.skipped = skipped
        self.byteCount = byteCount
    }

    /// A view of one run of bytes. See the ownership rule above.
    @inlinable @unsafe
    package init(_ start: UnsafeMutableRawPointer, byteCount: Int) {
        unsafe self.init(base: start, segmentCount: 0, skipped: 0, byteCount: byteCount)
    }

    /// A view of several runs. The list itself must stay in place as long as the memory does.
    @unsafe
    package init(segments: UnsafeMutableBufferPointer<iovec>) {
        guard let list = segments.baseAddress else { preconditionFailure("a vector has at least one segment") }
        var total = 0
        for index in segments.indices { total += unsafe segments[index].iov_len }
        unsafe self.init(base: UnsafeMutableRawPointer(list), segmentCount: Int32(segments.count), skipped: 0, byteCount: total)
    }

    @inlinable package var isContiguous: Bool { segmentCount == 0 }

    /// The part of `byteCount` bytes that begins `start` bytes into this view.
    /// - Precondition: the part lies inside.
    @inlinable
    package func slice(at start: Int, byteCount count: Int) -> IOVector {
        precondition(start >= 0 && count >= 0 && start <= byteCount && count <= byteCount &- start, "a slice lies inside its vector")
        if segmentCount == 0 { return unsafe IOVector(base: base + start, segmentCount: 0, skipped: 0, byteCount: count) }
        return sliceOfList(at: start, byteCount: count)
    }

    @usableFromInline
    func sliceOfList(at start: Int, byteCount count: Int) -> IOVector {
        // SAFETY (whole function): `base` is an array of `segmentCount` iovecs by construction, and the caller checked the range.
        let list = unsafe base.assumingMemoryBound(to: iovec.self)
        var index = 0
        var skip = skipped + start
        while index < Int(segmentCount) - 1 {
            let length = unsafe list[index].iov_len
            if skip < length { break }
            skip -= length
            index += 1
        }
        let segment = unsafe list[index]
        if let run = unsafe segment.iov_base, unsafe skip + count <= segment.iov_len {
            return unsafe IOVector(base: run + skip, segmentCount: 0, skipped: 0, byteCount: count)
        }
        return unsafe IOVector(base: UnsafeMutableRawPointer(list + index), segmentCount: segmentCount - Int32(index), skipped: skip, byteCount: count)
    }

    /// Calls `body` with each run in order, until the view is exhausted.
    @inlinable @unsafe
    package func forEachRun(_ body: (UnsafeMutableRawBufferPointer) -> Void) {
        if segmentCount == 0 {
            unsafe body(UnsafeMutableRawBufferPointer(start: base, count: byteCount))
            return
        }
        // SAFETY: as in `sliceOfList`.
        let list = unsafe base.assumingMemoryBound(to: iovec.self)
        var left = byteCount
        var skip = skipped
        for index in 0..<Int(segmentCount) {
            if left == 0 { return }
            let segment = unsafe list[index]
            let length = unsafe min(segment.iov_len - skip, left)
            if length > 0, let run = unsafe segment.iov_base {
                unsafe body(UnsafeMutableRawBufferPointer(start: run + skip, count: length))
            }
            left -= max(length, 0)
            skip = 0
        }
    }

    /// The view as a list that a system call takes. At most `limit` entries: what does not fit is left out, and the call transfers less.
    @unsafe
    package func withSystemVector<R>(limit: Int = 1024, _ body: (UnsafePointer<iovec>, Int32) -> R) -> R {
        if segmentCount == 0 {
            var single = unsafe iovec(iov_base: base, iov_len: byteCount)
            return unsafe withUnsafePointer(to: &single) { unsafe body($0, 1) }
        }
        return unsafe withUnsafeTemporaryAllocation(of: iovec.self, capacity: min(Int(segmentCount), limit)) { list in
            var count = 0
            unsafe forEachRun { run in
                if count < list.count {
                    unsafe list.initializeElement(at: count, to: iovec(iov_base: run.baseAddress, iov_len: run.count))
                    count += 1
                }
            }
            // SAFETY: a temporary allocation of at least one element has a base address; a list vector has at least one segment.
            guard let start = list.baseAddress else { preconditionFailure("a vector has at least one segment") }
            return unsafe body(UnsafePointer(start), Int32(count))
        }
    }
}

extension IOVector {
    /// Fills the view with zero bytes.
    package func zero() {
        unsafe forEachRun { run in
            if let start = run.baseAddress { unsafe memset(start, 0, run.count) }
        }
    }

    /// Fills the view with one byte value.
    package func fill(with byte: UInt8) {
        unsafe forEachRun { run in
            if let start = run.baseAddress { unsafe memset(start, Int32(byte), run.count) }
        }
    }

    /// Whether every byte is zero. Stops at the first one that is not.
    package var isZero: Bool {
        var allZero = true
        unsafe forEachRun { run in
            if allZero { allZero = unsafe Self.isZero(run) }
        }
        return allZero
    }

    private static func isZero(_ run: UnsafeMutableRawBufferPointer) -> Bool {
        guard let start = run.baseAddress else { return true }
        // The first bytes decide most calls; the rest is compared with itself, one run shifted, at the speed of memcmp.
        let head = min(run.count, 16)
        for index in 0..<head where unsafe run[index] != 0 { return false }
        return unsafe run.count <= 16 || memcmp(start, start + 16, run.count - 16) == 0
    }

    /// Copies from `other` into this view.
    /// - Precondition: both have the same length.
    package func copy(from other: IOVector) {
        precondition(byteCount == other.byteCount, "a copy is between vectors of one length")
        var position = 0
        unsafe other.forEachRun { run in
            unsafe copyIn(UnsafeRawBufferPointer(run), at: position)
            position += run.count
        }
    }

    /// Copies `bytes` into this view, `offset` bytes from its start.
    /// - Precondition: they fit.
    package func copyIn(_ bytes: RawSpan, at offset: Int) {
        unsafe bytes.withUnsafeBytes { unsafe copyIn($0, at: offset) }
    }

    /// Fills `bytes` from this view, `offset` bytes from its start.
    /// - Precondition: as many bytes are there.
    package func copyOut(at offset: Int, into bytes: inout MutableRawSpan) {
        let part = slice(at: offset, byteCount: bytes.byteCount)
        unsafe bytes.withUnsafeMutableBytes { target in
            var position = 0
            unsafe part.forEachRun { run in
                if let to = target.baseAddress, let from = run.baseAddress { unsafe memcpy(to + position, from, run.count) }
                position += run.count
            }
        }
    }

    /// The bytes themselves, when they lie in one run; nil when they do not.
    package func withBytes<R, E>(_ body: (RawSpan) throws(E) -> R) throws(E) -> R? {
        guard segmentCount == 0 else { return nil }
        return try body(unsafe UnsafeRawBufferPointer(start: base, count: byteCount).bytes)
    }

    private func copyIn(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        var position = 0
        unsafe slice(at: offset, byteCount: bytes.count).forEachRun { run in
            if let to = run.baseAddress, let from = bytes.baseAddress { unsafe memmove(to, from + position, run.count) }
            position += run.count
        }
    }

    /// Whether every run starts at a multiple of `alignment` in memory and is a multiple of it long. O_DIRECT asks for that.
    package func isAligned(to alignment: Int) -> Bool {
        if alignment <= 1 { return true }
        var aligned = true
        unsafe forEachRun { run in
            let address = Int(bitPattern: run.baseAddress)
            aligned = aligned && (address | run.count).isAligned(to: alignment)
        }
        return aligned
    }
}
