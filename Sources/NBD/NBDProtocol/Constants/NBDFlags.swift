// The flag words of the protocol, one option set each. Source: NBD protocol document, "Values".

/// What the server says in its greeting.
package struct NBDHandshakeFlags: OptionSet, Hashable, Sendable {
    package let rawValue: UInt16
    package init(rawValue: UInt16) { self.rawValue = rawValue }
    package static let fixedNewstyle = Self(rawValue: 1 << 0)
    /// Offers to leave out the 124 zero bytes after EXPORT_NAME.
    package static let noZeroes = Self(rawValue: 1 << 1)
}

/// What the client answers to the greeting.
package struct NBDClientFlags: OptionSet, Hashable, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let fixedNewstyle = Self(rawValue: 1 << 0)
    package static let noZeroes = Self(rawValue: 1 << 1)
    package static let known: Self = [.fixedNewstyle, .noZeroes]
}

/// What an export can do.
@frozen
package struct NBDTransmissionFlags: OptionSet, Hashable, Sendable {
    package let rawValue: UInt16
    @inlinable package init(rawValue: UInt16) { self.rawValue = rawValue }
    /// Always set.
    @inlinable package static var hasFlags: Self { Self(rawValue: 1 << 0) }
    @inlinable package static var readOnly: Self { Self(rawValue: 1 << 1) }
    @inlinable package static var sendFlush: Self { Self(rawValue: 1 << 2) }
    @inlinable package static var sendFUA: Self { Self(rawValue: 1 << 3) }
    @inlinable package static var rotational: Self { Self(rawValue: 1 << 4) }
    @inlinable package static var sendTrim: Self { Self(rawValue: 1 << 5) }
    @inlinable package static var sendWriteZeroes: Self { Self(rawValue: 1 << 6) }
    /// "Don't fragment" is understood; only with structured replies.
    @inlinable package static var sendDF: Self { Self(rawValue: 1 << 7) }
    /// A flush on one connection covers what the others were told is written.
    @inlinable package static var canMultiConn: Self { Self(rawValue: 1 << 8) }
    @inlinable package static var sendResize: Self { Self(rawValue: 1 << 9) }
    @inlinable package static var sendCache: Self { Self(rawValue: 1 << 10) }
    @inlinable package static var sendFastZero: Self { Self(rawValue: 1 << 11) }
    @inlinable package static var blockStatusPayload: Self { Self(rawValue: 1 << 12) }
}

/// What a client asks for beside the command itself.
@frozen
package struct NBDCommandFlags: OptionSet, Hashable, Sendable {
    package let rawValue: UInt16
    @inlinable package init(rawValue: UInt16) { self.rawValue = rawValue }
    /// Answer only when the data is on stable storage.
    @inlinable package static var forceUnitAccess: Self { Self(rawValue: 1 << 0) }
    /// Write zeroes without giving up the space.
    @inlinable package static var noHole: Self { Self(rawValue: 1 << 1) }
    /// Answer a read in one chunk.
    @inlinable package static var dontFragment: Self { Self(rawValue: 1 << 2) }
    /// Answer a block status request with one extent.
    @inlinable package static var requestOne: Self { Self(rawValue: 1 << 3) }
    /// Fail rather than write zero bytes one by one.
    @inlinable package static var fastZero: Self { Self(rawValue: 1 << 4) }
    /// The length counts a payload; only with extended headers.
    @inlinable package static var payloadLength: Self { Self(rawValue: 1 << 5) }
}

/// The flags of a structured reply chunk.
@frozen
package struct NBDReplyFlags: OptionSet, Hashable, Sendable {
    package let rawValue: UInt16
    @inlinable package init(rawValue: UInt16) { self.rawValue = rawValue }
    /// The last chunk of its reply.
    @inlinable package static var done: Self { Self(rawValue: 1 << 0) }
}

/// What the context `base:allocation` says about an extent.
@frozen
package struct NBDAllocationState: OptionSet, Hashable, Sendable {
    package let rawValue: UInt32
    @inlinable package init(rawValue: UInt32) { self.rawValue = rawValue }
    /// A write here may fail for want of space.
    @inlinable package static var hole: Self { Self(rawValue: 1 << 0) }
    /// Reads as zeroes.
    @inlinable package static var zero: Self { Self(rawValue: 1 << 1) }
}
