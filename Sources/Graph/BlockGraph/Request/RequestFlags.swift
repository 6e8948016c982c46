/// How a request is to be carried out.
@frozen @usableFromInline package struct RequestFlags: OptionSet, Hashable, Sendable {
    @usableFromInline package let rawValue: UInt16
    @inlinable package init(rawValue: UInt16) { self.rawValue = rawValue }

    /// The write is on stable storage when it is acknowledged (FUA).
    @inlinable package static var forceUnitAccess: RequestFlags { RequestFlags(rawValue: 1 << 0) }
    /// Zeroes may be written by giving space back.
    @inlinable package static var mayUnmap: RequestFlags { RequestFlags(rawValue: 1 << 1) }
    /// Zeroes only if that is faster than writing them: otherwise fail with `.unsupported`.
    @inlinable package static var noFallback: RequestFlags { RequestFlags(rawValue: 1 << 2) }
    /// Store the data compressed.
    @inlinable package static var compressed: RequestFlags { RequestFlags(rawValue: 1 << 3) }
    /// The write does not change what a reader sees.
    @inlinable package static var writeUnchanged: RequestFlags { RequestFlags(rawValue: 1 << 4) }
    /// Only bring the data near: nobody looks at the memory, or touches it before the request is over.
    @inlinable package static var prefetch: RequestFlags { RequestFlags(rawValue: 1 << 5) }
    /// The synchronous path has been tried already and answered no: go straight to the engine.
    @inlinable package static var alreadyTried: RequestFlags { RequestFlags(rawValue: 1 << 6) }
    /// A copy only if the file system lets both places share the blocks: otherwise it is `.unsupported`.
    @inlinable package static var sharedOnly: RequestFlags { RequestFlags(rawValue: 1 << 7) }
}
