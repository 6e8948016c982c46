import Foundation
import Glibc
import StrataTesting
import Testing

/// Whatever a client sends, it loses at most its own connection.
@Suite("NBD server: hostile clients", .timeLimit(.minutes(3)))
struct HostileClientTests {
    /// The server still serves somebody else.
    private func expectAlive(_ path: String, _ name: String) throws {
        let client = try RawClient(path)
        try client.enter(name)
        let data = try client.readStructured(at: 0, 16)
        #expect(data.count == 16)
    }

    @Test("errors carry the right number and the session goes on", arguments: [true, false])
    func errorNumbers(structured: Bool) async throws {
        let size: UInt64 = 1 << 20
        let server = try await TestServer.withTestDisk("quick", byteCount: Int(size))
        try await server.client { path in
            let client = try RawClient(path)
            try client.enter("quick", structured: structured)
            func answer(_ command: UInt16, flags: UInt16 = 0, at offset: UInt64 = 0, _ count: UInt32 = 512, payload: [UInt8] = []) throws -> UInt32 {
                try client.request(command, flags: flags, cookie: 77, at: offset, count, payload: payload)
                let reply = try client.reply()
                #expect(reply.cookie == 77)
                #expect(reply.isSimple != structured || reply.error == 0)
                return reply.error
            }
            let block = [UInt8](repeating: 1, count: 512)
            let errors = [
                try answer(0, at: size), try answer(0, at: .max), try answer(0, at: size - 1, 2), try answer(0, flags: 0x8000), try answer(0, 32 << 20 + 1),
                try answer(1, at: size, payload: block), try answer(1, at: .max - 511, payload: block), try answer(1, flags: 2, payload: block),
                try answer(4, at: size), try answer(6, at: size - 511), try answer(6, flags: 8), try answer(5, at: size), try answer(7),
                try answer(8), try answer(9), try answer(0xffff),
            ]
            #expect(errors == [22, 22, 22, 22, 22, 28, 28, 22, 22, 28, 22, 22, 22, 22, 22, 22])
            if !structured {
                let dontFragment = try answer(0, flags: 4)
                #expect(dontFragment == 22)
            }
            let fine = [try answer(3), try answer(4), try answer(6), try answer(5), try answer(1, payload: block), try answer(3, at: .max, .max)]
            #expect(fine == [0, 0, 0, 0, 0, 0])
        }
        await server.stop()
    }

    @Test("errors of the disk arrive as what they are")
    func diskErrors() async throws {
        let server = try await TestServer.withTestDisk("failing", byteCount: 4 << 20)
        try await server.client { path in
            let client = try RawClient(path)
            try client.enter("failing")
            try client.request(0, cookie: 1, at: 1 << 20, 512)
            let reply = try client.reply()
            #expect(reply.error == 5 && reply.type == 0x8001)
            #expect(String(decoding: reply.payload.dropFirst(6), as: UTF8.self).contains("second MiB"))
            let full = try client.write(at: 2 << 20, [1, 2, 3])
            #expect(full == 28)
            let fine = try client.write(at: 0, [1, 2, 3])
            #expect(fine == 0)
        }
        await server.stop()
    }

    @Test("a read-only export refuses changes and stays readable")
    func readOnly() async throws {
        let server = try await TestServer.withRawDisk(byteCount: 1 << 20, writable: false)
        try await server.client { path in
            let client = try RawClient(path)
            let (_, flags) = try client.enter("disk")
            #expect(flags & 2 == 2)
            let written = try client.write(at: 0, [UInt8](repeating: 1, count: 100_000))
            #expect(written == 1)
            for command in [UInt16(4), 6] {
                try client.request(command, at: 0, 512)
                let reply = try client.reply()
                #expect(reply.error == 1)
            }
            let data = try client.readStructured(at: 0, 4)
            #expect(data == [0, 0, 0, 0])
        }
        await server.stop()
    }

    @Test("a wrong magic ends that connection and no other")
    func wrongMagic() async throws {
        let server = try await TestServer.withTestDisk("quick", byteCount: 1 << 20)
        try await server.client { path in
            let good = try RawClient(path)
            try good.enter("quick")
            for magic in [UInt32(0), 0x2560_9514, 0x21e4_1c71, .max] {
                let bad = try RawClient(path)
                try bad.enter("quick")
                try bad.request(0, at: 0, 16, magic: magic)
                let isClosed = try bad.isClosed()
                #expect(isClosed)
            }
            let data = try good.readStructured(at: 0, 16)
            #expect(data.count == 16)
        }
        await server.stop()
    }

    /// Every command once, after a handshake for the export "quick" with a context, and a goodbye.
    private static func conversation(extended: Bool, longWrite: Bool = false) -> [UInt8] {
        let big = RawClient.big
        let wireName = big(5, 4) + Array("quick".utf8)
        let context = Array("base:allocation".utf8)
        func option(_ number: UInt64, _ payload: [UInt8]) -> [UInt8] { Array("IHAVEOPT".utf8) + big(number, 4) + big(UInt64(payload.count), 4) + payload }
        func request(_ command: UInt64, flags: UInt64 = 0, _ count: UInt64, _ payload: [UInt8] = []) -> [UInt8] {
            big(extended ? 0x21e4_1c71 : 0x2560_9513, 4) + big(extended && !payload.isEmpty ? flags | 0x20 : flags, 2) + big(command, 2) + big(command + 1, 8)
                + big(4096, 8) + big(count, extended ? 8 : 4) + payload
        }
        var conversation = big(3, 4) + option(extended ? 11 : 8, []) + option(10, wireName + big(1, 4) + big(UInt64(context.count), 4) + context)
        conversation += option(7, wireName + [0, 0]) + request(0, 100) + request(1, 40, [UInt8](repeating: 1, count: 40)) + request(3, 0) + request(4, 512)
        conversation += request(5, 512) + request(6, flags: 2, 512) + request(7, flags: 8, 70_000) + request(8, 0)
        if extended { conversation += request(7, 12, big(4096, 8) + big(0, 4)) }
        // The beginning of a payload that has a buffer of its own.
        if longWrite { return conversation + request(1, 70_000, [UInt8](repeating: 2, count: 64)) }
        return conversation + request(2, 0)
    }

    @Test("a client may leave at any byte of a conversation with every command in it", arguments: [false, true])
    func leaveAnywhere(extended: Bool) async throws {
        // The same name in front of a disk that answers at once, and of one that does not.
        for node in ["quick", "slow"] {
            let server = try await TestServer(
                drivers: [TestDisk.self], nodes: { _ in [TestDisk.node(node, byteCount: 1 << 20)] }, exports: [TestServer.export(node, name: "quick")])
            try await server.client { path in
                let conversation = Self.conversation(extended: extended, longWrite: true)
                for count in 0...conversation.count {
                    let client = try RawClient(path)
                    try client.send(Array(conversation.prefix(count)))
                }
                try expectAlive(path, "quick")
            }
            await server.stop()
        }
    }

    @Test("any byte of a conversation may be wrong, lost or said twice, with every command in it", arguments: [false, true])
    func corruptAnywhere(extended: Bool) async throws {
        let server = try await TestServer.withTestDisk("quick", byteCount: 1 << 20)
        try await server.client { path in
            let conversation = Self.conversation(extended: extended)
            for index in conversation.indices {
                let byte = conversation[index]
                for damage in [[byte ^ 1], [byte ^ 0x80], [byte ^ 0xff], [], [byte, byte]] {
                    var damaged = conversation
                    damaged.replaceSubrange(index...index, with: damage)
                    let client = try RawClient(path)
                    do {
                        try client.send(damaged)
                        // This is all that the client has to say: what the server says is bounded, and it hangs up.
                        shutdown(client.descriptor, Int32(SHUT_WR))
                        var said = 0
                        while true {
                            var room = [UInt8](repeating: 0, count: 65536)
                            let count = recv(client.descriptor, &room, room.count, 0)
                            if count < 0, errno == EAGAIN { Issue.record("byte \(index) as \(damage): the server neither speaks nor hangs up") }
                            if count <= 0 { break }
                            said += count
                        }
                        #expect(said < 48 << 20)
                    } catch is RawClient.Failure {}  // the server has hung up
                }
            }
            try expectAlive(path, "quick")
        }
        await server.stop()
    }

    @Test("requests after DISC are not looked at, those before it are finished")
    func disconnect() async throws {
        let server = try await TestServer.withTestDisk("slow", byteCount: 1 << 20)
        try await server.client { path in
            let client = try RawClient(path)
            try client.enter("slow")
            for cookie in UInt64(0)..<5 { try client.request(1, cookie: cookie, at: cookie * 100, 100, payload: [UInt8](repeating: 9, count: 100)) }
            try client.request(2)
            try client.request(1, cookie: 99, at: 600, 100, payload: [UInt8](repeating: 8, count: 100))
            var cookies = Set<UInt64>()
            for _ in 0..<5 { cookies.insert(try client.reply().cookie) }
            #expect(cookies == [0, 1, 2, 3, 4])
            let isClosed = try client.isClosed()
            #expect(isClosed)
            let other = try RawClient(path)
            try other.enter("slow")
            let data = try other.readStructured(at: 0, 700)
            #expect(data == [UInt8](repeating: 9, count: 500) + [UInt8](repeating: 0, count: 200))
        }
        await server.stop()
    }

    @Test("garbage in the transmission phase", arguments: 0..<8)
    func garbage(seed: Int) async throws {
        let server = try await TestServer.withTestDisk(seed % 2 == 0 ? "quick" : "slow", byteCount: 1 << 20)
        try await server.client { path in
            let name = seed % 2 == 0 ? "quick" : "slow"
            var random = SeededGenerator(seed: seed)
            for _ in 0..<20 {
                let client = try RawClient(path)
                try client.enter(name, structured: Bool.random(using: &random), context: false)
                do {
                    for _ in 0..<30 {
                        // Every field may be anything; the magic is mostly right so that the rest is looked at.
                        try client.request(
                            UInt16.random(in: 0...9, using: &random), flags: Bool.random(using: &random) ? 0 : 1 << UInt16.random(in: 0...15, using: &random),
                            cookie: random.next(), at: Bool.random(using: &random) ? UInt64.random(in: 0...2 << 20, using: &random) : random.next(),
                            Bool.random(using: &random) ? UInt32.random(in: 0...5000, using: &random) : UInt32(truncatingIfNeeded: random.next()),
                            payload: random.bytes(Int.random(in: 0...64, using: &random) * 8),
                            magic: Int.random(in: 0...20, using: &random) == 0 ? UInt32(truncatingIfNeeded: random.next()) : 0x2560_9513)
                    }
                } catch is RawClient.Failure {}  // the server has hung up
            }
            try expectAlive(path, name)
        }
        await server.stop()
    }

    @Test("plain garbage instead of a handshake", arguments: 0..<4)
    func handshakeGarbage(seed: Int) async throws {
        let server = try await TestServer.withTestDisk("quick", byteCount: 1 << 20)
        try await server.client { path in
            var random = SeededGenerator(seed: seed)
            for _ in 0..<50 {
                let client = try RawClient(path)
                let prefix: [UInt8] = Bool.random(using: &random) ? [0, 0, 0, 3] + Array("IHAVEOPT".utf8) : []
                do { try client.send(prefix + random.bytes(Int.random(in: 0...2000, using: &random))) } catch is RawClient.Failure {}
            }
            try expectAlive(path, "quick")
        }
        await server.stop()
    }
}
