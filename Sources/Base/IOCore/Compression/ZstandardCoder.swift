internal import CZstandard
import Synchronization

/// Zstandard frames (RFC 8878) by libzstd. Its tables are kept for the next cluster; used by one thread at a time.
@safe final class ZstandardCoder: StreamCoder, @unchecked Sendable {  // unchecked: `CoderPool` gives it to one thread at a time
    static let pool = CoderPool<ZstandardCoder>()

    /// The level that zstd itself takes when none is asked for; also QEMU's.
    private static let level: Int32 = 3

    private var compressor: OpaquePointer?
    private var decompressor: OpaquePointer?

    init() {}

    deinit {
        _ = unsafe ZSTD_freeCCtx(compressor)
        _ = unsafe ZSTD_freeDCtx(decompressor)
    }

    func compress(_ source: UnsafeRawBufferPointer, _ target: UnsafeMutableRawBufferPointer) -> Int? {
        if unsafe compressor == nil { unsafe compressor = ZSTD_createCCtx() }
        guard let compressor = unsafe compressor, let from = source.baseAddress, let to = target.baseAddress else { return nil }
        let count = unsafe ZSTD_compressCCtx(compressor, to, target.count, from, source.count, Self.level)
        return ZSTD_isError(count) == 0 ? count : nil
    }

    func expand(_ source: UnsafeRawBufferPointer, _ target: UnsafeMutableRawBufferPointer) -> Int {
        if unsafe decompressor == nil { unsafe decompressor = ZSTD_createDCtx() }
        guard let decompressor = unsafe decompressor, let from = source.baseAddress, let to = target.baseAddress else { return -1 }
        // The frame is followed by the rest of its sector. Expanding a frame that is there as a whole needs no window of its own, whatever size
        // of window the frame asks for: memory is bounded by the cluster.
        let frame = unsafe ZSTD_findFrameCompressedSize(from, source.count)
        guard ZSTD_isError(frame) == 0 else { return -1 }
        let count = unsafe ZSTD_decompressDCtx(decompressor, to, target.count, from, frame)
        return ZSTD_isError(count) == 0 ? count : -1
    }
}
