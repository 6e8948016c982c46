import StrataBase

/// How a session's replies look, and how their headers are written.
///
/// Simple: 16 bytes for the whole reply. Structured: chunks with a header of 20 bytes, big-endian: magic, flags, type, cookie, payload length.
/// Extended: chunks with a header of 32 bytes, where the request's offset follows the cookie and the payload length has 64 bits.
/// Source: NBD protocol document, "Simple reply message", "Structured reply chunk message", "Extended reply chunk message".
@frozen
package enum ReplyFormat: Hashable, Sendable {
    case simple, structured, extended

    /// What a request's replies repeat from it.
    @frozen
    package struct Reference: Hashable, Sendable {
        package var cookie: UInt64
        /// Bytes from the start of the export, as the client sent it.
        package var offset: UInt64
        @inlinable package init(cookie: UInt64, offset: UInt64) {
            self.cookie = cookie
            self.offset = offset
        }
    }

    /// The size of a chunk's header, in bytes; for `simple` that of the reply.
    @inlinable package var headerSize: Int {
        switch self {
        case .simple: SimpleReply.encodedSize
        case .structured: StructuredReply.headerSize
        case .extended: StructuredReply.extendedHeaderSize
        }
    }

    /// What stands before a read's data, in bytes.
    @inlinable package var dataHeaderSize: Int { self == .simple ? SimpleReply.encodedSize : headerSize &+ 8 }

    /// - Precondition: not `simple`; room for `headerSize` bytes at `position`; without extended headers the payload is shorter than 4 GiB.
    @inlinable
    package func encodeHeader(
        _ type: StructuredReply.ChunkType, flags: NBDReplyFlags, _ reference: Reference, payloadByteCount: Int, into bytes: inout MutableRawSpan,
        at position: Int = 0
    ) {
        bytes.setBigEndian(self == .extended ? NBDMagic.extendedReply : NBDMagic.structuredReply, at: position)
        bytes.setBigEndian(flags.rawValue, at: position &+ 4)
        bytes.setBigEndian(type.rawValue, at: position &+ 6)
        bytes.setBigEndian(reference.cookie, at: position &+ 8)
        if self == .extended {
            bytes.setBigEndian(reference.offset, at: position &+ 16)
            bytes.setBigEndian(UInt64(payloadByteCount), at: position &+ 24)
        } else {
            bytes.setBigEndian(UInt32(payloadByteCount), at: position &+ 16)
        }
    }

    /// What stands before `byteCount` bytes of data that lie at `offset` of the export.
    /// - Precondition: room for `dataHeaderSize` bytes.
    @inlinable
    package func encodeDataHeader(flags: NBDReplyFlags, _ reference: Reference, offset: UInt64, byteCount: Int, into bytes: inout MutableRawSpan) {
        if self == .simple { return SimpleReply.encode(cookie: reference.cookie, into: &bytes) }
        encodeHeader(.offsetData, flags: flags, reference, payloadByteCount: byteCount &+ 8, into: &bytes)
        bytes.setBigEndian(offset, at: headerSize)
    }

    /// `byteCount` bytes of zeroes at `offset` of the export, in place of data.
    /// - Precondition: not `simple`; room for `headerSize` bytes and `StructuredReply.holePayloadByteCount`; from 1 byte to 4 GiB - 1.
    package func encodeHole(flags: NBDReplyFlags, _ reference: Reference, offset: UInt64, byteCount: Int, into bytes: inout MutableRawSpan) {
        encodeHeader(.offsetHole, flags: flags, reference, payloadByteCount: StructuredReply.holePayloadByteCount, into: &bytes)
        bytes.setBigEndian(offset, at: headerSize)
        bytes.setBigEndian(UInt32(byteCount), at: headerSize + 8)
    }

    /// The size of an error with that text, in bytes. Simple replies have no room for a text.
    package func errorSize(_ text: String) -> Int { self == .simple ? SimpleReply.encodedSize : headerSize + 6 + text.wirePrefix.utf8.count }

    /// An error, always the last chunk of its reply.
    /// - Precondition: room for `errorSize(text)` bytes.
    package func encodeError(_ code: NBDErrorCode, _ text: String, _ reference: Reference, into bytes: inout MutableRawSpan) {
        if self == .simple { return SimpleReply.encode(cookie: reference.cookie, error: code, into: &bytes) }
        let text = text.wirePrefix
        encodeHeader(.error, flags: .done, reference, payloadByteCount: 6 + text.utf8.count, into: &bytes)
        bytes.setBigEndian(code.rawValue, at: headerSize)
        bytes.setBigEndian(UInt16(text.utf8.count), at: headerSize + 4)
        var next = headerSize + 6
        for unit in text.utf8 {
            bytes.setBigEndian(unit, at: next)
            next += 1
        }
    }
}

/// Numbers of the chunks of structured replies. Source: NBD protocol document, "Structured reply types".
@frozen
package enum StructuredReply {
    @inlinable package static var headerSize: Int { 20 }
    /// With extended headers: the request's offset and a 64-bit payload length.
    @inlinable package static var extendedHeaderSize: Int { 32 }
    /// A hole: offset and 32-bit length.
    package static var holePayloadByteCount: Int { 12 }

    /// What a chunk carries. Types with the top bit set are errors.
    @frozen
    package enum ChunkType: UInt16, Sendable {
        case none = 0
        case offsetData = 1
        case offsetHole = 2
        case blockStatus = 5
        case blockStatusExtended = 6
        case error = 0x8001
        case errorOffset = 0x8002
    }
}
