import StrataBase

/// A simple reply's header. 16 bytes, big-endian: magic, error, cookie; a successful read's data follows.
@frozen
package enum SimpleReply {
    @inlinable package static var encodedSize: Int { 16 }

    /// - Parameter error: nil for success.
    /// - Precondition: room for `encodedSize` bytes at `position`.
    @inlinable
    package static func encode(cookie: UInt64, error: NBDErrorCode? = nil, into bytes: inout MutableRawSpan, at position: Int = 0) {
        bytes.setBigEndian(NBDMagic.simpleReply, at: position)
        bytes.setBigEndian(error?.rawValue ?? 0, at: position &+ 4)
        bytes.setBigEndian(cookie, at: position &+ 8)
    }
}
