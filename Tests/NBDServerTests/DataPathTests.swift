import BlockGraph
import Foundation
import IOCore
import StrataBase
import StrataTesting
import Testing

/// The bytes are right on every way through the server.
@Suite("NBD server: data", .timeLimit(.minutes(3)))
struct DataPathTests {
    @Test("a random workload does to the disk what it does to an array", arguments: ["quick", "slow", "moody"], [true, false])
    func model(name: String, structured: Bool) async throws {
        let size = 4 << 20
        let server = try await TestServer.withTestDisk(name, byteCount: size)
        try await server.client { path in
            let client = try RawClient(path)
            try client.enter(name, structured: structured)
            var random = SeededGenerator(seed: structured ? 3 : 4)
            var model = [UInt8](repeating: 0, count: size)
            let lengths = [1, 15, 512, 4096, 5000, 61_439, 61_440, 61_441, 65_535, 65_536, 65_537, 300_000, 1 << 20]
            for step in 0..<250 {
                let length = lengths[Int.random(in: 0..<lengths.count, using: &random)]
                let offset = Int.random(in: 0...(size - length), using: &random)
                if Bool.random(using: &random) {
                    let data = random.bytes(length)
                    let error = try client.write(at: UInt64(offset), data, flags: Bool.random(using: &random) ? 1 : 0)
                    #expect(error == 0)
                    model.replaceSubrange(offset..<(offset + length), with: data)
                } else {
                    let flags: UInt16 = structured && Bool.random(using: &random) ? 4 : 0
                    let data = structured
                        ? try client.readStructured(at: UInt64(offset), UInt32(length), flags: flags) : try client.readSimple(at: UInt64(offset), UInt32(length))
                    let matches = isSame(data, model[offset..<(offset + length)])
                    #expect(matches, "step \(step): \(length) bytes at \(offset)")
                }
            }
        }
        await server.stop()
    }

    @Test("many requests at once are each answered with their own data, in whatever order", arguments: ["quick", "slow"])
    func outOfOrder(name: String) async throws {
        let size = 8 << 20
        let server = try await TestServer.withTestDisk(name, byteCount: size)
        let overtakings = try await server.client { path in
            let client = try RawClient(path)
            try client.enter(name)
            var random = SeededGenerator(seed: 11)
            let content = random.bytes(size)
            for start in stride(from: 0, to: size, by: 1 << 20) {
                let error = try client.write(at: UInt64(start), Array(content[start..<(start + 1 << 20)]))
                #expect(error == 0)
            }
            var expected: [UInt64: Range<Int>] = [:]
            // More than the server works on at a time: the rest waits in its socket.
            for cookie in UInt64(0)..<300 {
                let length = Int.random(in: 1...20_000, using: &random)
                let offset = Int.random(in: 0...(size - length), using: &random)
                expected[cookie] = offset..<(offset + length)
                try client.request(0, cookie: cookie, at: UInt64(offset), UInt32(length))
            }
            var last: UInt64 = 0
            var overtakings = 0
            for _ in 0..<300 {
                let chunk = try client.reply()
                guard let range = expected.removeValue(forKey: chunk.cookie), chunk.type == 1, chunk.flags == 1 else {
                    Issue.record("an answer that nobody asked for: \(chunk.cookie) \(chunk.type)")
                    return 0
                }
                let matches = isSame(chunk.payload[8...], content[range])
                #expect(matches)
                if chunk.cookie < last { overtakings += 1 }
                last = chunk.cookie
            }
            #expect(expected.isEmpty)
            return overtakings
        }
        if name == "slow" { #expect(overtakings > 10) }
        await server.stop()
    }

    @Test("large reads of a plain file are right at odd places and across its end", arguments: [true, false])
    func largeReads(structured: Bool) async throws {
        // The file ends within a sector: what the disk has beyond it are zeroes.
        let size = 5 << 20 | 700
        let server = try await TestServer.withRawDisk(byteCount: size)
        try await server.client { path in
            var random = SeededGenerator(seed: 5)
            let content = random.bytes(size) + [UInt8](repeating: 0, count: 1024 - 700)
            try Data(content[..<size]).write(to: URL(fileURLWithPath: server.diskPath), options: [])
            let client = try RawClient(path)
            let (length, _) = try client.enter("disk", structured: structured)
            #expect(Int(length) == content.count)
            for (offset, count) in [
                (0, 64 << 10), (1, 64 << 10), (4095, 1 << 20), (0, content.count), (content.count - 65_536, 65_536), (content.count - 100, 100),
                (content.count - 1_000_001, 1_000_001), (777, 4 << 20),
            ] {
                let data = structured ? try client.readStructured(at: UInt64(offset), UInt32(count)) : try client.readSimple(at: UInt64(offset), UInt32(count))
                let matches = isSame(data, content[offset..<(offset + count)])
                #expect(matches, "\(count) bytes at \(offset)")
            }
        }
        await server.stop()
    }

    @Test("a client that asks for much and reads nothing yet holds up only itself, and gets everything in the end", arguments: ["quick", "slow", "disk"])
    func slowReader(name: String) async throws {
        let size = 4 << 20
        let server = name == "disk" ? try await TestServer.withRawDisk(byteCount: size) : try await TestServer.withTestDisk(name, byteCount: size)
        try await server.client { path in
            var random = SeededGenerator(seed: 6)
            let content = random.bytes(size)
            let other = try RawClient(path)
            try other.enter(name)
            let error = try other.write(at: 0, content)
            #expect(error == 0)

            let greedy = try RawClient(path)
            try greedy.enter(name)
            for cookie in UInt64(0)..<100 { try greedy.request(0, flags: 4, cookie: cookie, at: (cookie % 3) << 20, 1 << 20) }
            for round in 0..<20 {
                let data = try other.readStructured(at: UInt64(round) << 12, 4096)
                let matches = isSame(data, content[(round << 12)..<((round + 1) << 12)])
                #expect(matches)
            }
            var seen = Set<UInt64>()
            for _ in 0..<100 {
                let chunk = try greedy.reply()
                let start = Int(chunk.cookie % 3) << 20
                let matches = isSame(chunk.payload[8...], content[start..<(start + 1 << 20)])
                #expect(matches)
                seen.insert(chunk.cookie)
            }
            #expect(seen.count == 100)
        }
        await server.stop()
    }

    @Test("a large read that waits for its client while the graph is drained is finished afterwards")
    func drainedInTheMiddle() async throws {
        let size = 2 << 20
        let server = try await TestServer.withRawDisk(byteCount: size)
        let holder = try await server.client { path in
            let client = try RawClient(path)
            try client.enter("disk")
            var random = SeededGenerator(seed: 12)
            let content = random.bytes(size)
            let error = try client.write(at: 0, content)
            #expect(error == 0)
            // Far more than the kernel buffers.
            for cookie in UInt64(0)..<24 { try client.request(0, cookie: cookie, at: 0, UInt32(size)) }
            return Holder((client, content, try client.receive(3 << 20)))
        }
        try await server.graph.withDrained(["disk"]) { () async throws(BlockError) in
            // The server finds the way to the file closed as soon as there is room to send again.
            _ = await BlockingPool.run { Result { holder.client.2 += try holder.client.0.receive(1 << 20) } }
        }
        try await server.client { _ in
            let (client, content, start) = holder.client
            let whole = 24 * (size + 28)
            let all = start + (try client.receive(whole - start.count))
            for index in 0..<24 {
                let from = index * (size + 28) + 28
                let matches = isSame(all[from..<(from + size)], content)
                #expect(matches, "reply \(index)")
            }
        }
        await server.stop()
    }

    @Test("32 MiB are written in one request; more is refused and skipped, and the session goes on", arguments: ["quick", "slow"])
    func longWrites(name: String) async throws {
        let size = 40 << 20
        let server = try await TestServer.withTestDisk(name, byteCount: size)
        try await server.client { path in
            let client = try RawClient(path)
            try client.enter(name)
            var random = SeededGenerator(seed: 8)
            let data = random.bytes(32 << 20)
            let error = try client.write(at: 12345, data)
            #expect(error == 0)
            let back = try client.readStructured(at: 12345, 32 << 20)
            let matches = isSame(back, data)
            #expect(matches)
            let refused = try client.write(at: 0, [UInt8](repeating: 1, count: 32 << 20 + 1))
            #expect(refused == 22)
            let first = try client.readStructured(at: 0, 4)
            #expect(first == [0, 0, 0, 0])
        }
        await server.stop()
    }

    @Test("a long write that begins at once and is finished slowly is one request with one answer", arguments: [false, true])
    func halfAtOnce(extended: Bool) async throws {
        let server = try await TestServer.withTestDisk("moody", byteCount: 4 << 20)
        try await server.client { path in
            let client = try RawClient(path)
            if extended { try client.enterExtended("moody") } else { try client.enter("moody") }
            var random = SeededGenerator(seed: 9)
            for (offset, count) in [(0, 1 << 20), (100, 1 << 20), ((1 << 20) - 65_537, 300_000), (1 << 20, 3 << 20), (524_287, 131_072)] {
                let data = random.bytes(count)
                if extended {
                    let place = RawClient.big(UInt64(offset), 8)
                    try client.send(RawClient.big(0x21e4_1c71, 4) + [0, 0x20, 0, 1] + RawClient.big(77, 8) + place + RawClient.big(UInt64(count), 8) + data)
                    // A chunk that says nothing but that it is the last one, and repeats the request's cookie and offset.
                    let expected: [UInt8] = RawClient.big(0x6e8a_278c, 4) + [0, 1, 0, 0] + RawClient.big(77, 8) + place + RawClient.big(0, 8)
                    let answer = try client.receive(expected.count)
                    #expect(answer == expected, "\(count) bytes at \(offset)")
                } else {
                    let error = try client.write(at: UInt64(offset), data)
                    #expect(error == 0)
                }
                let reader = try RawClient(path)
                try reader.enter("moody")
                let back = try reader.readStructured(at: UInt64(offset), UInt32(count))
                let matches = isSame(back, data)
                #expect(matches, "\(count) bytes at \(offset)")
            }
        }
        await server.stop()
    }

    @Test("a client that leaves in the middle of a long write has written whole sectors of it or nothing")
    func leavesInTheMiddle() async throws {
        let server = try await TestServer.withTestDisk("quick", byteCount: 2 << 20)
        try await server.client { path in
            for sent in [1, 65_535, 65_536, 200_000, (1 << 20) - 1] {
                let client = try RawClient(path)
                try client.enter("quick")
                try client.request(1, at: 512, 1 << 20, payload: [UInt8](repeating: 0xab, count: sent))
            }
            let reader = try RawClient(path)
            try reader.enter("quick")
            let back = try reader.readStructured(at: 0, 2 << 20)
            for sector in stride(from: 0, to: back.count, by: 512) {
                let isWhole = back[sector..<sector + 512].allSatisfy { $0 == 0xab } || back[sector..<sector + 512].allSatisfy { $0 == 0 }
                #expect(isWhole, "the sector at \(sector)")
            }
            #expect(back[..<512].allSatisfy { $0 == 0 } && back[((1 << 20) + 512)...].allSatisfy { $0 == 0 })
        }
        await server.stop()
    }

    @Test("connections on several threads see one disk")
    func severalThreads() async throws {
        let server = try await TestServer.withTestDisk("quick", byteCount: 1 << 20, threads: 2)
        try await server.client { path in
            let clients = try (0..<4).map { _ in try RawClient(path) }
            for client in clients { try client.enter("quick") }
            for (index, client) in clients.enumerated() {
                let error = try client.write(at: UInt64(index) * 100, [UInt8](repeating: UInt8(index + 1), count: 100))
                #expect(error == 0)
            }
            for client in clients {
                let data = try client.readStructured(at: 0, 400)
                #expect(data == (1...4).flatMap { [UInt8](repeating: UInt8($0), count: 100) })
            }
        }
        await server.stop()
    }

    @Test("clients that send one request at a time are all served, although the server looks out for the quick ones")
    func spinningIsFair() async throws {
        let server = try await TestServer.withTestDisk("quick", byteCount: 1 << 20)
        let rounds = 500
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<3 {
                group.addTask {
                    try await server.client { path in
                        let client = try RawClient(path)
                        try client.enter("quick")
                        for round in 0..<rounds { _ = try client.readStructured(at: UInt64(round), 512) }
                    }
                }
            }
            try await group.waitForAll()
        }
        await server.stop()
    }

    @Test("block status: extents in order, one if one is asked for", arguments: ["quick", "slow"])
    func blockStatus(name: String) async throws {
        let server = try await TestServer.withTestDisk(name, byteCount: 1 << 20)
        try await server.client { path in
            let client = try RawClient(path)
            try client.enter(name, context: true)
            func extents(_ offset: UInt64, _ count: UInt32, flags: UInt16 = 0) throws -> [[UInt64]] {
                try client.request(7, flags: flags, cookie: 5, at: offset, count)
                let chunk = try client.reply()
                guard chunk.type == 5, chunk.cookie == 5, chunk.payload.prefix(4).allSatisfy({ $0 == 0 }) else { throw RawClient.Failure(text: "\(chunk)") }
                return stride(from: 4, to: chunk.payload.count, by: 8).map {
                    [RawClient.number(chunk.payload[$0..<($0 + 4)]), RawClient.number(chunk.payload[($0 + 4)..<($0 + 8)])]
                }
            }
            let all = try extents(0, 1 << 20)
            #expect(all == (0..<16).map { [65_536, $0 % 2 == 0 ? 0 : 3] })
            let part = try extents(1000, 100_000)
            #expect(part == [[64_536, 0], [35_464, 3]])
            let one = try extents(65_536, 500_000, flags: 8)
            #expect(one == [[65_536, 3]])
        }
        await server.stop()
    }
}
