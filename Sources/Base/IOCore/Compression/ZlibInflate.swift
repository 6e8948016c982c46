internal import CZlib

/// Raw deflate streams (RFC 1951) by zlib, which reads what libdeflate refuses: a stream that goes on after the output is full.
enum ZlibInflate {
    /// - Returns: the number of bytes produced; negative for a stream that zlib refuses.
    @unsafe static func expand(_ source: UnsafeRawBufferPointer, _ target: UnsafeMutableRawBufferPointer) -> Int {
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
