package import StrataBase

/// Deflate streams in a zlib wrapper (RFC 1950), as VMDK images have them.
package enum ZlibStream {
    /// Expands the stream at the start of `input`; what follows it is ignored.
    /// - Returns: how many bytes of `output` it filled. The rest is zeroed: no byte of anything else can be seen there.
    /// - Throws: `.corruptImage` when the stream is damaged or does not fit.
    package static func expand(_ input: IOBuffer, into output: IOBuffer) throws(BlockError) -> Int {
        let produced = input.withBytes { (source: RawSpan) -> Int in
            output.withMutableBytes { (target: inout MutableRawSpan) -> Int in
                // SAFETY: both spans stay in place for the duration of the closures, and the coder is told their exact lengths.
                unsafe source.withUnsafeBytes { source in
                    unsafe target.withUnsafeMutableBytes { target in DeflateCoder.pool.withCoder { unsafe $0.expandWrapped(source, target) } }
                }
            }
        }
        let rest = max(produced, 0)
        output.vector(at: rest, byteCount: output.byteCount - rest).zero()
        guard produced >= 0 else { throw BlockError(.corruptImage, "a compressed grain is damaged, or holds more than \(output.byteCount) bytes") }
        return produced
    }
}
