internal import CStrataLinux

/// A TCP address in numbers, as the kernel knows it.
package struct SocketName: Hashable, Sendable {
    package let host: String
    package let port: Int
    package let family: IPFamily

    /// The address of one end of `descriptor`; nil for other than TCP.
    package init?(of descriptor: Int32, peer: Bool) {
        var text = [CChar](repeating: 0, count: 64)
        var port: Int32 = 0
        // SAFETY: the C function writes at most `count` bytes, a terminating zero included.
        let family = unsafe text.withUnsafeMutableBufferPointer { unsafe strata_socket_name(descriptor, peer ? 1 : 0, $0.baseAddress, $0.count, &port) }
        guard let family = IPFamily(rawValue: family), family != .any else { return nil }
        host = String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        self.port = Int(port)
        self.family = family
    }
}
