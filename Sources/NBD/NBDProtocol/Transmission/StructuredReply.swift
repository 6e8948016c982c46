import StrataBase

/// Chunks of a structured reply. Each starts with a 20-byte header, big-endian: magic, flags, type, cookie, payload length.
/// Source: NBD protocol document, "Structured reply chunk message", "Structured reply types".
@frozen
package enum StructuredReply {
    @inlinable package static var headerSize: Int { 20 }
    /// With extended headers: the request's offset and a 64-bit payload length.
    @inlinable package static var extendedHeaderSize: Int { 32 }
    /// Header and offset of a data chunk; the data follows.
    @inlinable package static var dataHeaderSize: Int { 28 }
    @inlinable package static var holeSize: Int { 32 }

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

    /// - Precondition: room for `headerSize` bytes at `position`; the payload is shorter than 4 GiB.
    @inlinable
    package static func encodeHeader(
        _ type: ChunkType, flags: NBDReplyFlags, cookie: UInt64, payloadByteCount: Int, into bytes: inout MutableRawSpan, at position: Int = 0
    ) {
        bytes.setBigEndian(NBDMagic.structuredReply, at: position)
        bytes.setBigEndian(flags.rawValue, at: position &+ 4)
        bytes.setBigEndian(type.rawValue, at: position &+ 6)
        bytes.setBigEndian(cookie, at: position &+ 8)
        bytes.setBigEndian(UInt32(payloadByteCount), at: position &+ 16)
    }

    /// The 28 bytes before `byteCount` bytes of data that lie at `offset` of the export.
    @inlinable
    package static func encodeDataHeader(
        flags: NBDReplyFlags, cookie: UInt64, offset: UInt64, byteCount: Int, into bytes: inout MutableRawSpan, at position: Int = 0
    ) {
        encodeHeader(.offsetData, flags: flags, cookie: cookie, payloadByteCount: byteCount &+ 8, into: &bytes, at: position)
        bytes.setBigEndian(offset, at: position &+ 20)
    }

    /// The 32 bytes that say that `byteCount` bytes at `offset` read as zeroes.
    @inlinable
    package static func encodeHole(
        flags: NBDReplyFlags, cookie: UInt64, offset: UInt64, byteCount: UInt32, into bytes: inout MutableRawSpan, at position: Int = 0
    ) {
        encodeHeader(.offsetHole, flags: flags, cookie: cookie, payloadByteCount: 12, into: &bytes, at: position)
        bytes.setBigEndian(offset, at: position &+ 20)
        bytes.setBigEndian(byteCount, at: position &+ 28)
    }

    /// The size of an error chunk with that text, in bytes.
    package static func errorSize(_ text: String) -> Int { headerSize + 6 + text.wirePrefix.utf8.count }

    /// An error chunk, always the last one of its reply.
    /// - Precondition: room for `errorSize(text)` bytes at `position`.
    package static func encodeError(_ code: NBDErrorCode, _ text: String, cookie: UInt64, into bytes: inout MutableRawSpan, at position: Int = 0) {
        let text = text.wirePrefix
        encodeHeader(.error, flags: .done, cookie: cookie, payloadByteCount: 6 + text.utf8.count, into: &bytes, at: position)
        bytes.setBigEndian(code.rawValue, at: position + 20)
        bytes.setBigEndian(UInt16(text.utf8.count), at: position + 24)
        var next = position + 26
        for unit in text.utf8 {
            bytes.setBigEndian(unit, at: next)
            next += 1
        }
    }
}
