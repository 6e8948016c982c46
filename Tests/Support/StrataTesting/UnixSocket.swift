import Foundation

/// A connected unix stream socket with blocking, time-limited reads and writes.
package final class UnixSocket: Sendable {
    private let descriptor: Int32

    /// Connects; nil if nobody listens there.
    package init?(path: String, limit: Duration = .seconds(60)) {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            close(descriptor)
            return nil
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        guard connected == 0 else {
            close(descriptor)
            return nil
        }
        self.descriptor = descriptor
        setLimit(limit)
    }

    /// How long one read or write may take, in whole seconds.
    package func setLimit(_ limit: Duration) {
        var patience = timeval(tv_sec: Int(limit / .seconds(1)), tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { close(descriptor) }

    package func send(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL)) }
            guard count > 0 else { throw HarnessError("cannot send: \(String(cString: strerror(errno)))") }
            sent += count
        }
    }

    /// Sends bytes and passes open files along with the first of them (SCM_RIGHTS).
    package func send(_ bytes: [UInt8], passing files: [Int32]) throws {
        guard !files.isEmpty else { return try send(bytes) }
        // One control message by hand, as cmsg(3) describes it: length, level, type, and the numbers; everything in units of 8 bytes.
        let header = MemoryLayout<cmsghdr>.size
        var control = [UInt8](repeating: 0, count: (header + files.count * 4 + 7) / 8 * 8)
        control.withUnsafeMutableBytes { raw in
            raw.storeBytes(of: header + files.count * 4, as: Int.self)
            raw.storeBytes(of: SOL_SOCKET, toByteOffset: 8, as: Int32.self)
            raw.storeBytes(of: 1, toByteOffset: 12, as: Int32.self)  // SCM_RIGHTS
            for (index, file) in files.enumerated() { raw.storeBytes(of: file, toByteOffset: header + index * 4, as: Int32.self) }
        }
        var contents = bytes
        let sent = contents.withUnsafeMutableBytes { data in
            control.withUnsafeMutableBytes { control in
                var part = iovec(iov_base: data.baseAddress, iov_len: data.count)
                return withUnsafeMutablePointer(to: &part) { part in
                    var message = msghdr()
                    message.msg_iov = part
                    message.msg_iovlen = 1
                    message.msg_control = control.baseAddress
                    message.msg_controllen = control.count
                    return sendmsg(descriptor, &message, Int32(MSG_NOSIGNAL))
                }
            }
        }
        guard sent > 0 else { throw HarnessError("cannot send with descriptors: \(String(cString: strerror(errno)))") }
        try send(Array(bytes[sent...]))
    }

    /// At most `count` bytes; none if the peer closed.
    package func receiveSome(_ count: Int) throws -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: count)
        let received = recv(descriptor, &buffer, count, 0)
        if received < 0 && errno == ECONNRESET { return [] }
        guard received >= 0 else { throw HarnessError("cannot receive: \(String(cString: strerror(errno)))") }
        return Array(buffer[..<received])
    }

    /// Exactly `count` bytes.
    package func receive(_ count: Int) throws -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        while bytes.count < count {
            let some = try receiveSome(count - bytes.count)
            guard !some.isEmpty else { throw HarnessError("the peer closed the connection after \(bytes.count) of \(count) bytes") }
            bytes += some
        }
        return bytes
    }

    /// Tells the peer that nothing more comes.
    package func finishSending() { shutdown(descriptor, Int32(SHUT_WR)) }
}
