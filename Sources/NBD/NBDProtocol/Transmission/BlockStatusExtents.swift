import StrataBase

/// The extents of one context in a block status reply: neighbours in the same state are one extent.
///
/// The protocol wants at least one extent, and all but the last one inside the request. Ours never reach beyond it.
package struct BlockStatusExtents: Hashable, Sendable {
    package struct Extent: Hashable, Sendable {
        /// Bytes, never zero.
        package var byteCount: UInt32
        package var state: NBDAllocationState
    }

    /// Extents in one reply. A client asks again for the rest.
    package static let maximumCount = 4096

    package private(set) var extents: [Extent] = []
    private let limit: Int
    /// Bytes that the extents cover so far.
    package private(set) var coveredByteCount = 0

    /// - Parameter onlyOne: the client asked for a single extent.
    package init(onlyOne: Bool) { limit = onlyOne ? 1 : Self.maximumCount }

    /// Adds the next bytes of the export.
    /// - Returns: false when no further extent fits; what was refused is not part of the reply.
    package mutating func append(byteCount: Int, state: NBDAllocationState) -> Bool {
        var rest = byteCount
        while rest > 0 {
            if let last = extents.last, last.state == state, last.byteCount < UInt32.max {
                let step = min(rest, Int(UInt32.max - last.byteCount))
                extents[extents.count - 1].byteCount += UInt32(step)
                coveredByteCount += step
                rest -= step
            } else {
                if extents.count == limit { return false }
                let step = min(rest, Int(UInt32.max))
                extents.append(Extent(byteCount: UInt32(step), state: state))
                coveredByteCount += step
                rest -= step
            }
        }
        return true
    }

    /// The size of the whole chunk, in bytes.
    package var encodedSize: Int { StructuredReply.headerSize + 4 + extents.count * 8 }

    /// Writes the chunk, header included.
    /// - Precondition: room for `encodedSize` bytes at `position`.
    package func encode(
        _ context: MetaContext, flags: NBDReplyFlags, cookie: UInt64, into bytes: inout MutableRawSpan, at position: Int = 0
    ) {
        StructuredReply.encodeHeader(
            .blockStatus, flags: flags, cookie: cookie, payloadByteCount: 4 + extents.count * 8, into: &bytes, at: position)
        bytes.setBigEndian(context.identifier, at: position + 20)
        var next = position + 24
        for extent in extents {
            bytes.setBigEndian(extent.byteCount, at: next)
            bytes.setBigEndian(extent.state.rawValue, at: next + 4)
            next += 8
        }
    }
}
