/// How a request is to be carried out.
package struct RequestFlags: OptionSet, Hashable, Sendable {
    package let rawValue: UInt16
    @inlinable package init(rawValue: UInt16) { self.rawValue = rawValue }

    /// The write is on stable storage when it is acknowledged (FUA).
    package static let forceUnitAccess = RequestFlags(rawValue: 1 << 0)
    /// Zeroes may be written by giving space back.
    package static let mayUnmap = RequestFlags(rawValue: 1 << 1)
    /// Zeroes only if that is faster than writing them: otherwise fail with `.unsupported`.
    package static let noFallback = RequestFlags(rawValue: 1 << 2)
    /// Store the data compressed.
    package static let compressed = RequestFlags(rawValue: 1 << 3)
    /// The write does not change what a reader sees.
    package static let writeUnchanged = RequestFlags(rawValue: 1 << 4)
    /// Only bring the data near; the target is not used.
    package static let prefetch = RequestFlags(rawValue: 1 << 5)
    /// The synchronous path has been tried already and answered no: go straight to the engine.
    package static let alreadyTried = RequestFlags(rawValue: 1 << 6)
}
