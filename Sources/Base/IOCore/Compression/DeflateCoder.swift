internal import CDeflate
import Synchronization

/// Raw deflate streams (RFC 1951, without a zlib header) by libdeflate. Its tables are kept for the next cluster; used by one thread at a time.
@safe final class DeflateCoder: StreamCoder, @unchecked Sendable {  // unchecked: `CoderPool` gives it to one thread at a time
    static let pool = CoderPool<DeflateCoder>()

    /// Smaller streams than zlib's level 6 makes with QEMU's 4 KiB window, in a third of its time.
    private static let level: Int32 = 5

    // Made when first needed: whoever only reads wants no tables for writing.
    private var compressor: OpaquePointer?
    private var decompressor: OpaquePointer?

    init() {}

    deinit {
        unsafe libdeflate_free_compressor(compressor)
        unsafe libdeflate_free_decompressor(decompressor)
    }

    func compress(_ source: UnsafeRawBufferPointer, _ target: UnsafeMutableRawBufferPointer) -> Int? {
        if unsafe compressor == nil { unsafe compressor = libdeflate_alloc_compressor(Self.level) }
        guard let compressor = unsafe compressor, let from = source.baseAddress, let to = target.baseAddress else { return nil }
        let count = unsafe libdeflate_deflate_compress(compressor, from, source.count, to, target.count)
        return count == 0 ? nil : count
    }

    func expand(_ source: UnsafeRawBufferPointer, _ target: UnsafeMutableRawBufferPointer) -> Int {
        if unsafe decompressor == nil { unsafe decompressor = libdeflate_alloc_decompressor() }
        if let decompressor = unsafe decompressor, let from = source.baseAddress, let to = target.baseAddress {
            var consumed = 0
            var produced = 0
            let result = unsafe libdeflate_deflate_decompress_ex(decompressor, from, source.count, to, target.count, &consumed, &produced)
            if result == LIBDEFLATE_SUCCESS, produced == target.count { return produced }
        }
        return unsafe ZlibInflate.expand(source, target)
    }

    /// The same for a stream in a zlib wrapper (RFC 1950), which must be whole and bear the right checksum. It may hold less than fits.
    /// - Returns: the number of bytes produced, negative for a stream that is damaged or holds more.
    func expandWrapped(_ source: UnsafeRawBufferPointer, _ target: UnsafeMutableRawBufferPointer) -> Int {
        if unsafe decompressor == nil { unsafe decompressor = libdeflate_alloc_decompressor() }
        guard let decompressor = unsafe decompressor, let from = source.baseAddress, let to = target.baseAddress else { return -1 }
        var consumed = 0
        var produced = 0
        let result = unsafe libdeflate_zlib_decompress_ex(decompressor, from, source.count, to, target.count, &consumed, &produced)
        return result == LIBDEFLATE_SUCCESS ? produced : -1
    }
}
