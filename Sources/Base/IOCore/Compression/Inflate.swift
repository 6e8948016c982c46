internal import CZlib
package import StrataBase

/// Raw deflate streams (RFC 1951, without a zlib header), as qcow2 stores compressed clusters.
package enum Inflate {
    /// Expands the stream at the start of `input` until `output` is full. What follows the stream is ignored: clusters are stored in sectors.
    /// - Throws: `.corruptImage` when the stream is broken or ends early. `output` then holds no byte of anything else.
    package static func expand(_ input: IOBuffer, into output: IOBuffer) throws(BlockError) {
        let produced = input.withBytes { (source: RawSpan) -> Int in
            output.withMutableBytes { (target: inout MutableRawSpan) -> Int in
                // SAFETY: both spans stay in place for the duration of the closures, and zlib is told their exact lengths.
                unsafe source.withUnsafeBytes { source in
                    unsafe target.withUnsafeMutableBytes { target in unsafe run(source, target) }
                }
            }
        }
        guard produced == output.byteCount else {
            output.vector.zero()
            throw BlockError(.corruptImage, "a compressed cluster holds \(max(produced, 0)) bytes of valid data instead of \(output.byteCount)")
        }
    }

    /// - Returns: the number of bytes produced; negative for a stream that zlib refuses.
    private static func run(_ source: UnsafeRawBufferPointer, _ target: UnsafeMutableRawBufferPointer) -> Int {
        guard let from = unsafe source.bindMemory(to: UInt8.self).baseAddress, let to = unsafe target.bindMemory(to: UInt8.self).baseAddress else { return -1 }
        var stream = unsafe z_stream()
        // SAFETY: zlib only reads through next_in.
        unsafe stream.next_in = UnsafeMutablePointer(mutating: from)
        unsafe stream.avail_in = UInt32(source.count)
        unsafe stream.next_out = to
        unsafe stream.avail_out = UInt32(target.count)
        // Raw deflate; the largest window reads streams of every smaller one.
        guard unsafe inflateInit2_(&stream, -15, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size)) == Z_OK else { return -1 }
        defer { _ = unsafe inflateEnd(&stream) }
        let result = unsafe inflate(&stream, Z_FINISH)
        // A full buffer with input left over (Z_BUF_ERROR) is as good as a stream that ends there.
        guard unsafe result == Z_STREAM_END || (result == Z_BUF_ERROR && stream.avail_out == 0) else { return -1 }
        return unsafe target.count - Int(stream.avail_out)
    }
}
