package import StrataBase

/// What sizes and alignments a driver can take. Everything in bytes; the request pipeline pads and splits accordingly.
package struct BlockLimits: Hashable, Sendable {
    /// Every read and write starts at and is a multiple of this: a power of two.
    package var requestAlignment: Int
    /// Where memory has to start and how long its runs are multiples of: a power of two.
    package var memoryAlignment: Int
    /// The longest read or write; `Int.max` for no limit.
    package var maxTransfer: Int
    /// Zeroes and discards are cut at multiples of these; what sticks out is written as data, or not discarded.
    package var zeroAlignment: Int
    package var discardAlignment: Int
    /// The longest single write-zeroes and discard.
    package var maxZero: Int
    package var maxDiscard: Int
    /// A good size for requests, 0 if there is none.
    package var optimalTransfer: Int

    package init(
        requestAlignment: Int = 1, memoryAlignment: Int = 1, maxTransfer: Int = .max, zeroAlignment: Int = 1, discardAlignment: Int = 1,
        maxZero: Int = .max, maxDiscard: Int = .max, optimalTransfer: Int = 0
    ) {
        self.requestAlignment = requestAlignment
        self.memoryAlignment = memoryAlignment
        self.maxTransfer = maxTransfer
        self.zeroAlignment = zeroAlignment
        self.discardAlignment = discardAlignment
        self.maxZero = maxZero
        self.maxDiscard = maxDiscard
        self.optimalTransfer = optimalTransfer
    }

    /// No node is longer, so that a length can be rounded up to any unit there is: the largest multiple of a gibibyte.
    package static let maximumLength = Int.max.roundedDown(to: 1 << 30)

    /// - Throws: `.tooLarge` for a length in bytes that no node can have.
    package static func check(newLength byteCount: Int) throws(BlockError) {
        guard byteCount <= maximumLength else {
            throw BlockError(.tooLarge, "Required too big image size, it must be not greater than \(maximumLength)")
        }
    }

    /// Refuses those who write to a disk and may not make it longer, when its last unit is not all there: it could not be written alone.
    /// - Parameter length: of the disk, in bytes.
    package func check(_ grant: PermissionGrant, length: Int) throws(BlockError) {
        guard grant.used.contains(.write), !grant.used.contains(.resize), length % requestAlignment != 0 else { return }
        throw BlockError(.invalidArgument, "Cannot get 'write' permission without 'resize': Image size is not a multiple of request alignment")
    }
}
