import StrataBase

/// A request as it stands on the wire. 28 bytes, big-endian: magic, flags, command, cookie, offset, length; a write's payload follows.
/// With extended headers the length has 64 bits and the header 32 bytes; the fields here hold both.
@frozen
package struct RequestFrame: Hashable, Sendable {
    @inlinable package static var encodedSize: Int { 28 }
    /// With extended headers.
    @inlinable package static var extendedSize: Int { 32 }

    package var flags: NBDCommandFlags
    package var command: NBDCommand
    /// Chosen by the client, returned unchanged in the reply.
    package var cookie: UInt64
    /// Bytes from the start of the export; any value may arrive.
    package var offset: UInt64
    /// Bytes; any value may arrive.
    package var byteCount: UInt64

    @inlinable
    package init(flags: NBDCommandFlags = [], command: NBDCommand, cookie: UInt64, offset: UInt64, byteCount: UInt64) {
        self.flags = flags
        self.command = command
        self.cookie = cookie
        self.offset = offset
        self.byteCount = byteCount
    }

    /// The request at the start of `bytes`.
    /// - Parameter isExtended: extended headers were agreed on.
    /// - Returns: nil for a wrong magic: where the next request starts is unknown then, and the connection is lost.
    /// - Precondition: at least `encodedSize` bytes, or `extendedSize`.
    @inlinable
    package init?(decoding bytes: RawSpan, isExtended: Bool = false) {
        guard bytes.checkedBigEndian(at: 0, as: UInt32.self) == (isExtended ? NBDMagic.extendedRequest : NBDMagic.request) else { return nil }
        flags = NBDCommandFlags(rawValue: bytes.checkedBigEndian(at: 4))
        command = NBDCommand(rawValue: bytes.checkedBigEndian(at: 6))
        cookie = bytes.checkedBigEndian(at: 8)
        offset = bytes.checkedBigEndian(at: 16)
        byteCount = isExtended ? bytes.checkedBigEndian(at: 24) : UInt64(bytes.checkedBigEndian(at: 24, as: UInt32.self))
    }

    /// Writes the header of a request with a 32-bit length.
    /// - Precondition: room for `encodedSize` bytes; the length fits.
    @inlinable
    package func encode(into bytes: inout MutableRawSpan) {
        bytes.setBigEndian(NBDMagic.request, at: 0)
        bytes.setBigEndian(flags.rawValue, at: 4)
        bytes.setBigEndian(command.rawValue, at: 6)
        bytes.setBigEndian(cookie, at: 8)
        bytes.setBigEndian(offset, at: 16)
        bytes.setBigEndian(UInt32(byteCount), at: 24)
    }

    /// Writes the header of a request with a 64-bit length, for sessions with extended headers.
    /// - Precondition: room for `extendedSize` bytes.
    @inlinable
    package func encodeExtended(into bytes: inout MutableRawSpan) {
        bytes.setBigEndian(NBDMagic.extendedRequest, at: 0)
        bytes.setBigEndian(flags.rawValue, at: 4)
        bytes.setBigEndian(command.rawValue, at: 6)
        bytes.setBigEndian(cookie, at: 8)
        bytes.setBigEndian(offset, at: 16)
        bytes.setBigEndian(byteCount, at: 24)
    }

    /// Bytes that follow the header on the wire. With extended headers a flag says that there are some, whatever the command.
    @inlinable
    package func payloadByteCount(isExtended: Bool) -> UInt64 {
        command == .write || (isExtended && flags.contains(.payloadLength)) ? byteCount : 0
    }

    /// What replies to this request repeat from it.
    @inlinable package var reference: ReplyFormat.Reference { ReplyFormat.Reference(cookie: cookie, offset: offset) }
}
