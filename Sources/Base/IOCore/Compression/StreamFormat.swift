package import StrataBase

/// How a cluster is compressed. Source: docs/interop/qcow2, "Header", compression type.
package enum StreamFormat: Hashable, Sendable {
    /// A raw deflate stream (RFC 1951), without a zlib header.
    case deflate
    /// One Zstandard frame (RFC 8878).
    case zstd

    /// Expands the stream at the start of `input` until `output` is full. What follows the stream is ignored: clusters are stored in sectors.
    /// - Throws: `.corruptImage` when the stream is broken or ends early. `output` then holds no byte of anything else.
    package func expand(_ input: IOBuffer, into output: IOBuffer) throws(BlockError) {
        defer { withExtendedLifetime(output) {} }
        try expand(input, into: output.vector)
    }

    /// - Precondition: `output` lies in one run.
    package func expand(_ input: IOBuffer, into output: IOVector) throws(BlockError) {
        precondition(output.isContiguous, "a stream is expanded in one run")
        var produced = -1
        input.withBytes { (source: RawSpan) in
            // SAFETY: the span and the run stay in place for the duration of the closures, and the coders are told their exact lengths.
            unsafe source.withUnsafeBytes { source in
                unsafe output.forEachRun { target in
                    switch self {
                    case .deflate: produced = DeflateCoder.pool.withCoder { unsafe $0.expand(source, target) }
                    case .zstd: produced = ZstandardCoder.pool.withCoder { unsafe $0.expand(source, target) }
                    }
                }
            }
        }
        guard produced == output.byteCount else {
            output.zero()
            throw BlockError(.corruptImage, "a compressed cluster holds \(max(produced, 0)) bytes of valid data instead of \(output.byteCount)")
        }
    }

    /// Compresses a part of `input` into `output`, from the same position on.
    /// - Returns: the length of the stream in bytes; nil when it would not be shorter than the data.
    /// - Precondition: the part lies in both buffers.
    func compress(_ input: IOBuffer, at offset: Int, byteCount: Int, into output: IOBuffer) -> Int? {
        input.withBytes { (source: RawSpan) -> Int? in
            output.withMutableBytes(at: offset, byteCount: byteCount - 1) { (target: inout MutableRawSpan) -> Int? in
                // SAFETY: as above; `extracting` traps when the part is not inside.
                let source = source.extracting(offset..<(offset + byteCount))
                return unsafe source.withUnsafeBytes { source in
                    unsafe target.withUnsafeMutableBytes { target in
                        switch self {
                        case .deflate: DeflateCoder.pool.withCoder { unsafe $0.compress(source, target) }
                        case .zstd: ZstandardCoder.pool.withCoder { unsafe $0.compress(source, target) }
                        }
                    }
                }
            }
        }
    }
}
