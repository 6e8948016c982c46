package import StrataBase

/// The extents of one context in a block status reply: neighbours in the same state are one extent.
///
/// The protocol wants at least one extent, and all but the last one inside the request. Ours never reach beyond it.
package struct BlockStatusExtents: Hashable, Sendable {
    package struct Extent: Hashable, Sendable {
        /// Bytes, never zero.
        package var byteCount: Int
        /// What the context's document says of it.
        package var state: UInt32
    }

    /// Extents in one reply. A client asks again for the rest.
    package static let maximumCount = 4096

    package private(set) var extents: [Extent] = []
    private let limit: Int
    private let longest: Int
    /// Bytes that the extents cover so far.
    package private(set) var coveredByteCount = 0

    /// - Parameters:
    ///   - onlyOne: the client asked for a single extent.
    ///   - isExtended: lengths have 64 bits on the wire, and otherwise 32.
    package init(onlyOne: Bool, isExtended: Bool = false) {
        limit = onlyOne ? 1 : Self.maximumCount
        longest = isExtended ? .max : Int(UInt32.max)
    }

    /// Adds the next bytes of the export.
    /// - Returns: false when no further extent fits; what was refused is not part of the reply.
    package mutating func append(byteCount: Int, state: UInt32) -> Bool {
        var rest = byteCount
        while rest > 0 {
            if let last = extents.last, last.state == state, last.byteCount < longest {
                let step = min(rest, longest - last.byteCount)
                extents[extents.count - 1].byteCount += step
                coveredByteCount += step
                rest -= step
            } else {
                if extents.count == limit { return false }
                let step = min(rest, longest)
                extents.append(Extent(byteCount: step, state: state))
                coveredByteCount += step
                rest -= step
            }
        }
        return true
    }

    package mutating func append(byteCount: Int, state: NBDAllocationState) -> Bool { append(byteCount: byteCount, state: state.rawValue) }

    /// The size of the chunk's payload, in bytes.
    package func payloadByteCount(_ format: ReplyFormat) -> Int { format == .extended ? 8 + extents.count * 16 : 4 + extents.count * 8 }

    /// Writes the chunk's payload.
    /// - Precondition: room for `payloadByteCount` bytes at `position`.
    package func encodePayload(_ context: MetaContext, _ format: ReplyFormat, into bytes: inout MutableRawSpan, at position: Int) {
        bytes.setBigEndian(context.identifier, at: position)
        var next = position + 4
        if format == .extended {
            bytes.setBigEndian(UInt32(extents.count), at: next)
            next += 4
        }
        for extent in extents {
            if format == .extended {
                bytes.setBigEndian(UInt64(extent.byteCount), at: next)
                bytes.setBigEndian(UInt64(extent.state), at: next + 8)
                next += 16
            } else {
                bytes.setBigEndian(UInt32(extent.byteCount), at: next)
                bytes.setBigEndian(extent.state, at: next + 4)
                next += 8
            }
        }
    }
}

/// The payload of a block status request that names the contexts that it is about. Only with extended headers.
/// Source: NBD protocol document, "Transmission phase", NBD_CMD_BLOCK_STATUS.
package struct BlockStatusFilter: Hashable, Sendable {
    /// The length of the range in question, in bytes; any value may arrive.
    package var byteCount: UInt64
    package var identifiers: [UInt32]

    /// The size of a payload with that many identifiers, in bytes.
    package static func encodedSize(identifierCount: Int) -> Int { 8 + 4 * identifierCount }

    /// - Throws: when the payload is not a length and whole numbers.
    package init(decoding payload: RawSpan) throws(DecodingFailure) {
        byteCount = try payload.bigEndian(at: 0)
        guard (payload.byteCount - 8).isMultiple(of: 4) else { throw .invalid("a block status payload of \(payload.byteCount) bytes") }
        identifiers = []
        for position in stride(from: 8, to: payload.byteCount, by: 4) { identifiers.append(try payload.bigEndian(at: position)) }
    }
}
