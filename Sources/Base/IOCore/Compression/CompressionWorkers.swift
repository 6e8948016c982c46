package import StrataBase

/// The streams of some units of data, each nil where it would not be shorter than the unit.
package struct CompressedUnits: Sendable {
    /// The stream of unit n starts at n times the unit's size.
    package let buffer: IOBuffer
    /// Bytes.
    package let lengths: [Int?]
}

/// Compression on the worker threads of the process, so that the thread of a guest's requests stays free for others.
package enum CompressionWorkers {
    /// Compresses each unit of `input` by itself. The caller leaves `input` alone meanwhile.
    /// - Parameter unit: bytes, at least 2; `input` is a multiple of it.
    package static func compress(_ input: IOBuffer, unit: Int, _ format: StreamFormat) async -> CompressedUnits {
        precondition(input.byteCount.isMultiple(of: unit) && unit > 1, "whole units are compressed")
        return await ComputeWorkers.run {
            let output = IOBuffer(byteCount: input.byteCount)
            var lengths: [Int?] = []
            lengths.reserveCapacity(input.byteCount / unit)
            for start in stride(from: 0, to: input.byteCount, by: unit) {
                lengths.append(format.compress(input, at: start, byteCount: unit, into: output))
            }
            return CompressedUnits(buffer: output, lengths: lengths)
        }
    }

    /// `StreamFormat.expand`, on a worker thread.
    package static func expand(_ input: IOBuffer, into output: IOBuffer, _ format: StreamFormat) async throws(BlockError) {
        let result = await ComputeWorkers.run { () -> Result<Void, BlockError> in
            do throws(BlockError) { return .success(try format.expand(input, into: output)) } catch { return .failure(error) }
        }
        try result.get()
    }
}
