import Foundation

/// An NBD client that does one thing after the other and shares no code with the product: the baseline protocol of the specification
/// (fixed newstyle, NBD_OPT_EXPORT_NAME or NBD_OPT_GO, simple replies).
package final class PlainNBDClient: Sendable {
    package struct Refusal: Error, Equatable, CustomStringConvertible {
        /// As on the wire: 1 is EPERM, 5 EIO, 22 EINVAL, 28 ENOSPC.
        package let error: UInt32
        package init(error: UInt32) { self.error = error }
        package var description: String { "NBD error \(error)" }
    }

    package enum Command: UInt16, Sendable {
        case read = 0, write = 1, disconnect = 2, flush = 3, trim = 4, cache = 5, writeZeroes = 6
    }

    /// Forced unit access: the reply comes after the data is on stable storage.
    package static let fua: UInt16 = 1

    private let socket: UnixSocket
    /// Bytes.
    package let size: UInt64
    package let transmissionFlags: UInt16

    package init(path: String, export: String, limit: Duration = .seconds(60)) throws {
        guard let socket = UnixSocket(path: path, limit: limit) else { throw HarnessError("nobody listens at \(path)") }
        self.socket = socket
        let hello = try socket.receive(18)
        guard hello.starts(with: Array("NBDMAGICIHAVEOPT".utf8)) else {
            throw HarnessError("this is no NBD server: \(hello)")
        }
        try socket.send(Self.bytes(3 as UInt32))  // fixed newstyle, no zeroes
        let name = Array(export.utf8)
        let payload = Self.bytes(UInt32(name.count)) + name + Self.bytes(0 as UInt16)
        try socket.send(Self.bytes(0x4948_4156_454f_5054 as UInt64) + Self.bytes(7 as UInt32) + Self.bytes(UInt32(payload.count)) + payload)
        var size: UInt64?, flags: UInt16 = 0
        while true {
            let head = try socket.receive(20)
            let type = Self.number(head[12..<16])
            let body = try socket.receive(Int(Self.number(head[16..<20])))
            if type == 1 { break }
            guard type == 3 else { throw HarnessError("the server refused export '\(export)' with reply type \(String(type, radix: 16))") }
            if Self.number(body[..<2]) == 0 {
                size = Self.number(body[2..<10])
                flags = UInt16(Self.number(body[10..<12]))
            }
        }
        guard let size else { throw HarnessError("the server gave no size for export '\(export)'") }
        self.size = size
        transmissionFlags = flags
    }

    /// Sends a request without waiting for its reply.
    package func submit(
        _ command: Command, flags: UInt16 = 0, cookie: UInt64, offset: Int = 0, length: Int = 0, data: [UInt8] = []
    ) throws {
        try socket.send(
            Self.bytes(0x2560_9513 as UInt32) + Self.bytes(flags) + Self.bytes(command.rawValue) + Self.bytes(cookie)
                + Self.bytes(UInt64(offset)) + Self.bytes(UInt32(length)) + data)
    }

    /// The next reply: the cookie of its request, after the server's error has been thrown if there was one.
    package func reply(readLength: Int = 0) throws -> (cookie: UInt64, data: [UInt8]) {
        let head = try socket.receive(16)
        guard Self.number(head[..<4]) == 0x6744_6698 else { throw HarnessError("bad reply magic \(head[..<4])") }
        let error = UInt32(Self.number(head[4..<8]))
        guard error == 0 else { throw Refusal(error: error) }
        return (Self.number(head[8..<16]), try socket.receive(readLength))
    }

    package func read(_ count: Int, at offset: Int) throws -> [UInt8] {
        try submit(.read, cookie: 1, offset: offset, length: count)
        return try reply(readLength: count).data
    }

    package func write(_ data: [UInt8], at offset: Int, flags: UInt16 = 0) throws {
        try submit(.write, flags: flags, cookie: 2, offset: offset, length: data.count, data: data)
        _ = try reply()
    }

    package func writeZeroes(_ count: Int, at offset: Int, flags: UInt16 = 0) throws {
        try submit(.writeZeroes, flags: flags, cookie: 3, offset: offset, length: count)
        _ = try reply()
    }

    package func trim(_ count: Int, at offset: Int) throws {
        try submit(.trim, cookie: 4, offset: offset, length: count)
        _ = try reply()
    }

    package func flush() throws {
        try submit(.flush, cookie: 5)
        _ = try reply()
    }

    /// Says goodbye and waits for the server to hang up.
    package func disconnect() throws {
        try submit(.disconnect, cookie: 6)
        while try !socket.receiveSome(4096).isEmpty {}
    }

    private static func bytes<I: FixedWidthInteger>(_ value: I) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }

    private static func number(_ bytes: some Sequence<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
}
