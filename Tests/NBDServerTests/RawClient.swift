import Foundation
import Glibc

/// An NBD client that sends exactly the bytes it is told to. Blocking, with a time limit on every receive.
final class RawClient {
    let descriptor: Int32
    /// Bytes of zeroes that the server has told of instead of sending them.
    private(set) var holes = 0

    struct Failure: Error { var text: String }

    /// Takes over a socket that is connected already.
    init(adopting descriptor: Int32) {
        self.descriptor = descriptor
        var limit = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
    }

    convenience init(_ path: String) throws {
        self.init(adopting: socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0))
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { target in
            for (index, unit) in path.utf8.enumerated() { target[index] = unit }
        }
        let result = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        if result != 0 { throw Failure(text: "connect: \(errno)") }
    }

    deinit { Glibc.close(descriptor) }

    func send(_ bytes: [UInt8]) throws {
        var done = 0
        while done < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress! + done, bytes.count - done, Int32(MSG_NOSIGNAL)) }
            if count <= 0 { throw Failure(text: "send: \(errno)") }
            done += count
        }
    }

    /// Exactly `count` bytes.
    func receive(_ count: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let result = bytes.withUnsafeMutableBytes { recv(descriptor, $0.baseAddress! + done, count - done, 0) }
            if result == 0 { throw Failure(text: "closed after \(done) of \(count) bytes") }
            if result < 0 { throw Failure(text: "receive: \(errno)") }
            done += result
        }
        return bytes
    }

    /// True when the server closes without saying anything more.
    func isClosed() throws -> Bool {
        var byte: UInt8 = 0
        let result = recv(descriptor, &byte, 1, 0)
        if result < 0, errno == EAGAIN { throw Failure(text: "the server neither spoke nor closed") }
        return result <= 0
    }

    // MARK: Handshake

    static func number(_ bytes: some Collection<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }
    static func big(_ value: UInt64, _ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) } }

    func greet(flags: UInt32 = 3) throws {
        let greeting = try receive(18)
        if greeting != Array("NBDMAGICIHAVEOPT".utf8) + [0, 3] { throw Failure(text: "greeting \(greeting)") }
        try send(Self.big(UInt64(flags), 4))
    }

    func option(_ number: UInt32, _ payload: [UInt8] = []) throws {
        try send(Array("IHAVEOPT".utf8) + Self.big(UInt64(number), 4) + Self.big(UInt64(payload.count), 4) + payload)
    }

    func optionReply() throws -> (type: UInt32, payload: [UInt8]) {
        let header = try receive(20)
        if Self.number(header[0..<8]) != 0x0003_e889_0455_65a9 { throw Failure(text: "option reply magic") }
        return (UInt32(Self.number(header[12..<16])), try receive(Int(Self.number(header[16..<20]))))
    }

    /// Goes into transmission. Returns size and flags.
    @discardableResult
    func enter(_ name: String = "", structured: Bool = true, context: Bool = false) throws -> (size: UInt64, flags: UInt16) {
        try greet()
        if structured {
            try option(8)
            guard try optionReply().type == 1 else { throw Failure(text: "no structured replies") }
        }
        let wireName = Self.big(UInt64(name.utf8.count), 4) + Array(name.utf8)
        if context {
            let query = Array("base:allocation".utf8)
            try option(10, wireName + Self.big(1, 4) + Self.big(UInt64(query.count), 4) + query)
            while true {
                let (type, _) = try optionReply()
                if type == 1 { break }
                if type != 4 { throw Failure(text: "SET_META_CONTEXT answered \(type)") }
            }
        }
        try option(7, wireName + [0, 0])
        var result: (UInt64, UInt16) = (0, 0)
        while true {
            let (type, payload) = try optionReply()
            if type == 1 { return result }
            if type != 3 { throw Failure(text: "GO answered \(type): \(String(decoding: payload, as: UTF8.self))") }
            if payload.count == 12 { result = (Self.number(payload[2..<10]), UInt16(Self.number(payload[10..<12]))) }
        }
    }

    /// Goes into transmission with extended headers.
    func enterExtended(_ name: String) throws {
        try greet()
        try option(11)
        guard try optionReply().type == 1 else { throw Failure(text: "no extended headers") }
        try option(7, Self.big(UInt64(name.utf8.count), 4) + Array(name.utf8) + [0, 0])
        while true {
            let (type, _) = try optionReply()
            if type == 1 { return }
            if type != 3 { throw Failure(text: "GO answered \(type)") }
        }
    }

    // MARK: Requests

    func request(
        _ command: UInt16, flags: UInt16 = 0, cookie: UInt64 = 1, at offset: UInt64 = 0, _ count: UInt32 = 0, payload: [UInt8] = [],
        magic: UInt32 = 0x2560_9513
    ) throws {
        try send(Self.big(UInt64(magic), 4) + Self.big(UInt64(flags), 2) + Self.big(UInt64(command), 2) + Self.big(cookie, 8)
            + Self.big(offset, 8) + Self.big(UInt64(count), 4) + payload)
    }

    /// A chunk, or a simple reply (type `.max`).
    struct Reply {
        var isSimple = false
        var flags: UInt16 = 1
        var type: UInt16 = 0
        var cookie: UInt64 = 0
        var error: UInt32 = 0
        var payload: [UInt8] = []
    }

    func reply() throws -> Reply {
        let magic = Self.number(try receive(4))
        if magic == 0x6744_6698 {
            let rest = try receive(12)
            return Reply(isSimple: true, cookie: Self.number(rest[4..<12]), error: UInt32(Self.number(rest[0..<4])))
        }
        if magic != 0x668e_33ef { throw Failure(text: "reply magic \(magic)") }
        let rest = try receive(16)
        var reply = Reply(flags: UInt16(Self.number(rest[0..<2])), type: UInt16(Self.number(rest[2..<4])), cookie: Self.number(rest[4..<12]))
        reply.payload = try receive(Int(Self.number(rest[12..<16])))
        if reply.type & 0x8000 != 0 { reply.error = UInt32(Self.number(reply.payload[0..<4])) }
        return reply
    }

    /// The data of one structured read, put together from its chunks.
    func readStructured(at offset: UInt64, _ count: UInt32, flags: UInt16 = 0, cookie: UInt64 = 7) throws -> [UInt8] {
        try request(0, flags: flags, cookie: cookie, at: offset, count)
        var data = [UInt8](repeating: 0xee, count: Int(count))
        while true {
            let chunk = try reply()
            if chunk.cookie != cookie || chunk.error != 0 || chunk.isSimple { throw Failure(text: "read answered \(chunk)") }
            if chunk.type == 1 {
                let start = Int(Self.number(chunk.payload[0..<8]) - offset)
                data.replaceSubrange(start..<(start + chunk.payload.count - 8), with: chunk.payload[8...])
            }
            if chunk.type == 2 {
                let start = Int(Self.number(chunk.payload[0..<8]) - offset), length = Int(Self.number(chunk.payload[8..<12]))
                data.replaceSubrange(start..<(start + length), with: repeatElement(0, count: length))
                holes += length
            }
            if chunk.flags & 1 == 1 { return data }
        }
    }

    func readSimple(at offset: UInt64, _ count: UInt32, cookie: UInt64 = 8) throws -> [UInt8] {
        try request(0, cookie: cookie, at: offset, count)
        let answer = try reply()
        guard answer.isSimple, answer.error == 0, answer.cookie == cookie else { throw Failure(text: "read answered \(answer)") }
        return try receive(Int(count))
    }

    func write(at offset: UInt64, _ data: [UInt8], flags: UInt16 = 0, cookie: UInt64 = 9) throws -> UInt32 {
        try request(1, flags: flags, cookie: cookie, at: offset, UInt32(data.count), payload: data)
        let answer = try reply()
        guard answer.cookie == cookie else { throw Failure(text: "write answered \(answer)") }
        return answer.error
    }
}

/// Compares at the speed of memcmp; a failed comparison of large arrays must not be printed either.
func isSame(_ a: some ContiguousBytes, _ b: some ContiguousBytes) -> Bool {
    a.withUnsafeBytes { a in b.withUnsafeBytes { b in a.count == b.count && (a.count == 0 || memcmp(a.baseAddress!, b.baseAddress!, a.count) == 0) } }
}
