import IOCore
import StrataBase

/// Cuts data that was read into runs that are all zero and runs that are not, in units that the target can leave out.
struct ZeroScan {
    /// Bytes; a unit is left out only as a whole. A power of two or at least a multiple of 512; 0 takes everything as data.
    let unit: Int

    /// Calls `body` for each run, in order. Units lie at multiples of their size in the target, so that the first and the last may be partial.
    /// - Parameters:
    ///   - data: what was read.
    ///   - offset: where it goes.
    ///   - body: gets the run's start and length in `data`, and whether it is zero.
    func forEachRun(
        of data: IOVector, at offset: GuestOffset,
        _ body: (_ start: Int, _ byteCount: Int, _ isZero: Bool) async throws(BlockError) -> Void
    ) async throws(BlockError) {
        guard unit > 0 else { return try await body(0, data.byteCount, false) }
        var runStart = 0
        var runIsZero = false
        var position = 0
        while position < data.byteCount {
            let untilNextUnit = unit - (offset.rawValue + position) % unit
            let count = min(untilNextUnit, data.byteCount - position)
            let isZero = data.slice(at: position, byteCount: count).isZero
            if isZero != runIsZero {
                if position > runStart { try await body(runStart, position - runStart, runIsZero) }
                runStart = position
                runIsZero = isZero
            }
            position += count
        }
        if position > runStart { try await body(runStart, position - runStart, runIsZero) }
    }
}
