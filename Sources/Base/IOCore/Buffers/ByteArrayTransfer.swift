// Bytes between arrays and I/O buffers.

extension IOBuffer {
    /// A buffer with the contents of an array.
    package convenience init(copying array: [UInt8]) {
        self.init(byteCount: array.count)
        // SAFETY: every bit pattern is a valid UInt8, and the array outlives the copy.
        unsafe vector.copyIn(array.span.bytes, at: 0)
    }

    /// The bytes as an array.
    package func copyToArray() -> [UInt8] {
        var array = [UInt8](repeating: 0, count: byteCount)
        var elements = array.mutableSpan
        // SAFETY: every bit pattern is a valid UInt8; the span is used only while the array stands still.
        var bytes = unsafe elements.mutableBytes
        vector.copyOut(at: 0, into: &bytes)
        return array
    }
}

extension IOVector {
    /// Fills this view with the bytes of an array from `start` on.
    /// - Precondition: as many are there.
    package func copyIn(_ array: [UInt8], from start: Int) {
        // SAFETY: every bit pattern is a valid UInt8, and the array outlives the copy.
        unsafe copyIn(array.span.bytes.extracting(start..<start + byteCount), at: 0)
    }

    /// Replaces the bytes of an array from `start` on by those of this view.
    /// - Precondition: there are as many.
    package func copyOut(into array: inout [UInt8], at start: Int) {
        var elements = array.mutableSpan
        // SAFETY: every bit pattern is a valid UInt8; the spans are used only while the array stands still.
        var bytes = unsafe elements.mutableBytes
        var part = bytes._mutatingExtracting(start..<start + byteCount)
        copyOut(at: 0, into: &part)
    }
}
