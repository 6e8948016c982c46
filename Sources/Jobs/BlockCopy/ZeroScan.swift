package import IOCore

/// Cuts data that was read into runs that are all zero and runs that are not, in units that the target can leave out.
package struct ZeroScan: Sendable {
    /// Bytes; a unit is left out only as a whole. A power of two or at least a multiple of 512; 0 takes everything as data.
    package let unit: Int

    package init(unit: Int) { self.unit = unit }

    /// The run that begins at `start`. Units lie at multiples of their size in the target, so that the first and the last may be partial.
    /// - Parameters:
    ///   - data: what was read.
    ///   - start: where in `data` to begin; less than its length.
    ///   - offset: where the first byte of `data` goes at the target.
    /// - Returns: how many bytes of `data` the run has, and whether they are zero.
    package func run(of data: IOVector, from start: Int, at offset: Int) -> (byteCount: Int, isZero: Bool) {
        guard unit > 0 else { return (data.byteCount - start, false) }
        var position = start
        var runIsZero = false
        while position < data.byteCount {
            let count = min(unit - (offset + position) % unit, data.byteCount - position)
            let isZero = data.slice(at: position, byteCount: count).isZero
            if position == start {
                runIsZero = isZero
            } else if isZero != runIsZero {
                break
            }
            position += count
        }
        return (position - start, runIsZero)
    }
}
