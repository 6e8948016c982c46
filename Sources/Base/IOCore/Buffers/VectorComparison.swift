import Glibc

extension IOVector {
    /// Where this view and another first differ, in bytes from their start; nil when they are equal.
    /// - Precondition: both have the same length.
    package func firstDifference(from other: IOVector) -> Int? {
        precondition(byteCount == other.byteCount, "views of one length are compared")
        var position = 0
        var found: Int?
        unsafe forEachRun { left in
            var inRun = 0
            unsafe other.slice(at: position, byteCount: left.count).forEachRun { right in
                // SAFETY: the slice has as many bytes as the run, so that every part of it lies inside.
                if found == nil, let difference = unsafe Self.firstDifference(left.baseAddress.map { unsafe $0 + inRun }, right) {
                    found = position + inRun + difference
                }
                inRun += right.count
            }
            position += left.count
        }
        return found
    }

    private static func firstDifference(_ left: UnsafeMutableRawPointer?, _ right: UnsafeMutableRawBufferPointer) -> Int? {
        guard let left = unsafe left, let start = right.baseAddress else { return nil }
        // The C library finds out quickly that nothing differs, which is the usual case; then piece by piece, then byte by byte.
        if unsafe memcmp(left, start, right.count) == 0 { return nil }
        let bytes = unsafe UnsafeRawBufferPointer(start: left, count: right.count)
        return right.indices.first { unsafe bytes[$0] != right[$0] }
    }
}
