import StrataBase

/// Everything that a client can get wrong in a request, checked in one place before anything acts on it.
@frozen
package struct RequestRules: Hashable, Sendable {
    /// Bytes.
    package var exportByteCount: UInt64
    package var flags: NBDTransmissionFlags
    package var hasMetaContexts: Bool
    /// With extended headers a write says that its length counts a payload. Some clients forget it; they mean the same.
    package var writeFlags: NBDCommandFlags
    /// A power of two, in bytes.
    package var minimumBlockSize: UInt64
    /// Bytes that one read or write may carry.
    package var maximumPayload: UInt64

    package init(_ session: NBDSession) {
        exportByteCount = UInt64(session.export.byteCount)
        flags = session.export.flags
        hasMetaContexts = !session.metaContexts.isEmpty
        writeFlags = session.replyStyle == .extended ? [.forceUnitAccess, .payloadLength] : .forceUnitAccess
        minimumBlockSize = UInt64(session.export.blockSizes.minimum)
        maximumPayload = UInt64(session.export.blockSizes.maximum)
    }

    /// Why the request is refused, or nil when it may be carried out. A disconnect is never refused.
    ///
    /// When this is nil, offset and length lie inside the export, so they fit in `Int`.
    @inlinable
    package func refusal(of request: RequestFrame) -> Refusal? {
        switch request.command {
        case .read:
            if !request.flags.isSubset(of: flags.contains(.sendDF) ? [.dontFragment, .forceUnitAccess] : [.forceUnitAccess]) {
                return .init(.invalid, "unknown flags")
            }
            if request.byteCount > maximumPayload { return .init(.invalid, "the request is longer than this server takes") }
            return refusalOfRange(request, beyondEnd: .invalid)
        case .write:
            if flags.contains(.readOnly) { return .init(.notPermitted, "the export is read-only") }
            if !request.flags.isSubset(of: writeFlags) { return .init(.invalid, "unknown flags") }
            if request.byteCount > maximumPayload { return .init(.invalid, "the request is longer than this server takes") }
            return refusalOfRange(request, beyondEnd: .noSpace)
        case .disconnect:
            return nil
        default:
            return refusalOfRareRequest(request)
        }
    }

    @usableFromInline
    func refusalOfRareRequest(_ request: RequestFrame) -> Refusal? {
        let allowed: NBDCommandFlags
        var changes = false
        var offered = true
        switch request.command {
        case .flush:
            allowed = [.forceUnitAccess]
            offered = flags.contains(.sendFlush)
        case .trim:
            (allowed, changes) = ([.forceUnitAccess], true)
            offered = flags.contains(.sendTrim)
        case .cache:
            allowed = [.forceUnitAccess]
            offered = flags.contains(.sendCache)
        case .writeZeroes:
            (allowed, changes) = (flags.contains(.sendFastZero) ? [.forceUnitAccess, .noHole, .fastZero] : [.forceUnitAccess, .noHole], true)
            offered = flags.contains(.sendWriteZeroes)
        case .blockStatus:
            allowed = [.forceUnitAccess, .requestOne]
            offered = hasMetaContexts
        default:
            return Refusal(.invalid, "\(request.command) is not supported")
        }
        if changes && flags.contains(.readOnly) { return Refusal(.notPermitted, "the export is read-only") }
        if !offered { return Refusal(.invalid, "\(request.command) was not offered") }
        if !request.flags.isSubset(of: allowed) { return Refusal(.invalid, "unknown flags") }
        if request.command == .flush { return nil }  // offset and length are reserved; old clients send anything
        if request.command == .cache, request.byteCount > maximumPayload { return Refusal(.invalid, "the request is longer than this server takes") }
        if request.command == .blockStatus, request.byteCount == 0 { return Refusal(.invalid, "a block status request of no bytes") }
        return refusalOfRange(request, beyondEnd: request.command == .writeZeroes ? .noSpace : .invalid)
    }

    @inlinable
    func refusalOfRange(_ request: RequestFrame, beyondEnd code: NBDErrorCode) -> Refusal? {
        if request.offset > exportByteCount || request.byteCount > exportByteCount &- request.offset {
            return Refusal(code, "the request reaches beyond the end of the export")
        }
        if (request.offset | request.byteCount) & (minimumBlockSize &- 1) != 0 {
            return Refusal(.invalid, "the request is not aligned to the minimum block size")
        }
        return nil
    }
}

/// An error for one request; the connection goes on.
@frozen
package struct Refusal: Hashable, Sendable {
    package var code: NBDErrorCode
    /// For people; travels only in structured replies.
    package var text: String

    @inlinable
    package init(_ code: NBDErrorCode, _ text: String) {
        self.code = code
        self.text = text
    }
}
