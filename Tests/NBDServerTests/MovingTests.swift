import BlockGraph
import Foundation
import IOCore
import NBDServer
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

@Suite("NBD server: connections move between I/O threads", .timeLimit(.minutes(2)))
struct MovingTests {
    private static let threads = 3, part = 256 << 10

    /// Random requests on one part of the disk, compared with an array; long writes and several requests at once among them.
    private static func work(_ client: RawClient, _ index: Int, while goesOn: () -> Bool) throws -> Int {
        var random = SeededGenerator(seed: index)
        let base = UInt64(index * part)
        var model = [UInt8](repeating: 0, count: part)
        var rounds = 0
        while goesOn() || rounds < 50 {
            rounds += 1
            let offset = Int.random(in: 0..<part, using: &random)
            let count = Int.random(in: 1...min(part - offset, rounds % 7 == 0 ? part : 5000), using: &random)
            switch Int.random(in: 0..<3, using: &random) {
            case 0:
                let data = random.bytes(count)
                guard try client.write(at: base + UInt64(offset), data) == 0 else { throw RawClient.Failure(text: "a write failed") }
                model.replaceSubrange(offset..<offset + count, with: data)
            case 1:
                // Several under way at once when the move comes.
                for cookie in 0..<8 as Range<UInt64> { try client.request(0, cookie: cookie, at: base + UInt64(offset), UInt32(count)) }
                var answers = [[UInt8]](repeating: [UInt8](repeating: 0xee, count: count), count: 8)
                var left = 8
                while left > 0 {
                    let chunk = try client.reply()
                    guard chunk.error == 0, chunk.cookie < 8 else { throw RawClient.Failure(text: "a read answered \(chunk)") }
                    if chunk.type == 1 {
                        let start = Int(RawClient.number(chunk.payload[0..<8]) - base) - offset
                        answers[Int(chunk.cookie)].replaceSubrange(start..<start + chunk.payload.count - 8, with: chunk.payload[8...])
                    }
                    if chunk.flags & 1 == 1 { left -= 1 }
                }
                for answer in answers where !isSame(answer, model[offset..<offset + count]) { throw RawClient.Failure(text: "a read differs in round \(rounds)") }
            default:
                let data = try client.readStructured(at: base + UInt64(offset), UInt32(count))
                guard isSame(data, model[offset..<offset + count]) else { throw RawClient.Failure(text: "a read differs in round \(rounds)") }
            }
        }
        return rounds
    }

    @Test("clients that are connected go where the node goes, in the middle of their work, and notice nothing")
    func moves() async throws {
        WatchedDisk.threads.withLock { $0 = [] }
        let server = try await TestServer(
            threads: Self.threads, drivers: [WatchedDisk.self], nodes: { _ in [TestDisk.node("disk", byteCount: Self.threads * Self.part)] },
            exports: [TestServer.export("disk")])
        let working = Atomic<Int>.Box(Self.threads)
        let moves = Atomic<Int>.Box(0)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for index in 0..<Self.threads {
                group.addTask {
                    try await server.client { path in
                        defer { working.value.subtract(1, ordering: .sequentiallyConsistent) }
                        let client = try RawClient(path)
                        try client.enter("disk")
                        _ = try Self.work(client, index) { moves.value.load(ordering: .sequentiallyConsistent) < 300 }
                    }
                }
            }
            group.addTask {
                var random = SeededGenerator(seed: 99)
                while working.value.load(ordering: .sequentiallyConsistent) > 0 {
                    let target = server.extraContexts[Int.random(in: 0..<Self.threads, using: &random)]
                    try await server.graph.move("disk", isForced: true) { () throws(BlockError) in target }
                    moves.value.add(1, ordering: .sequentiallyConsistent)
                    for context in server.extraContexts { await context.turnBoundary() }
                }
            }
            try await group.waitForAll()
        }
        #expect(WatchedDisk.threads.withLock { $0 }.isSuperset(of: server.extraContexts.map(\.name)))
        // One client, one move, one place.
        let client = try await server.client { path in
            let client = try RawClient(path)
            try client.enter("disk")
            return Kept(client)
        }
        for target in server.extraContexts {
            try await server.graph.move("disk", isForced: true) { () throws(BlockError) in target }
            // The connection has heard of it by now: it was posted to the thread that serves it.
            for context in server.extraContexts { await context.turnBoundary() }
            for context in server.extraContexts { await context.turnBoundary() }
            WatchedDisk.threads.withLock { $0 = [] }
            try await server.client { _ in _ = try client.client.readStructured(at: 0, 4096) }
            #expect(WatchedDisk.threads.withLock { $0 } == [target.name])
        }
        withExtendedLifetime(client) {}
        await server.stop()
    }

    private final class Kept: @unchecked Sendable {  // unchecked: one thread at a time
        let client: RawClient
        init(_ client: RawClient) { self.client = client }
    }
}

extension Atomic {
    /// An atomic that can be captured.
    fileprivate final class Box: Sendable where Value == Int {
        let value: Atomic<Int>
        init(_ initial: Int) { value = Atomic(initial) }
    }
}

/// A disk in memory that remembers which threads its requests run on; every other request suspends. Stands in for `null-co`.
private final class WatchedDisk: BlockDriver {
    static let formatName = "null-co"
    static let kind = DriverKind.protocol
    static let threads = Mutex<Set<String>>([])

    let length: Int
    private let memory: IOBuffer
    private let count = Atomic<Int>(0)

    static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .nullCo(let own) = options.branch else { throw BlockError(.invalidArgument, "not a test disk") }
        return WatchedDisk(own.size ?? 1 << 20)
    }

    private init(_ byteCount: Int) {
        length = byteCount
        memory = IOBuffer(zeroed: byteCount)
    }

    private var isQuick: Bool { count.add(1, ordering: .relaxed).oldValue % 2 == 0 }
    private func note() { Self.threads.withLock { _ = $0.insert(IOContext.current?.name ?? "none") } }

    func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        guard isQuick else { return false }
        note()
        target.copy(from: memory.vector(at: offset.rawValue, byteCount: target.byteCount))
        return true
    }

    func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        await IOContext.current?.sleep(for: .microseconds(50))
        note()
        target.copy(from: memory.vector(at: offset.rawValue, byteCount: target.byteCount))
    }

    func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        guard isQuick else { return false }
        memory.vector(at: offset.rawValue, byteCount: source.byteCount).copy(from: source)
        return true
    }

    func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        await IOContext.current?.sleep(for: .microseconds(50))
        memory.vector(at: offset.rawValue, byteCount: source.byteCount).copy(from: source)
    }
}
