import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import StrataTesting
import Synchronization
import Testing

/// One connection has so many requests and so many bytes under way; the rest waits in its socket.
@Suite("NBD server: what one connection may have under way", .timeLimit(.minutes(3)))
struct LimitsInFlightTests {
    @Test("no more requests, and no more bytes, than the limits say; nothing is lost, and others are served meanwhile", arguments: [
        (byteCount: 512, sent: 300, admitted: 128), (byteCount: 8 << 20, sent: 20, admitted: 8),
    ])
    func limits(byteCount: Int, sent: Int, admitted: Int) async throws {
        let gate = HoldingDisk.Gate()
        let name = "held-\(byteCount)"
        HoldingDisk.gates.withLock { $0[name] = gate }
        defer { HoldingDisk.gates.withLock { $0[name] = nil } }
        let server = try await TestServer(
            drivers: [HoldingDisk.self],
            nodes: { _ in [TestDisk.node(name, byteCount: 8 << 20), TestDisk.node("free", byteCount: 1 << 20)] },
            exports: [TestServer.export(name), TestServer.export("free")])
        let greedy = try await server.client { path in
            let client = try RawClient(path)
            try client.enter(name, structured: false)
            for cookie in 1...UInt64(sent) { try client.request(0, cookie: cookie, at: 0, UInt32(byteCount)) }
            return Holder(client)
        }
        await gate.reached(admitted)
        // The server takes many more turns, in each of which it could take more of the greedy client's requests.
        try await server.client { path in
            let other = try RawClient(path)
            try other.enter("free")
            for turn in 0..<50 { #expect(try other.readStructured(at: UInt64(turn) * 512, 512).count == 512) }
        }
        #expect(gate.mostHeld == admitted)
        gate.open()
        let answered = try await server.client { _ in
            var cookies: Set<UInt64> = []
            for _ in 0..<sent {
                let reply = try greedy.client.reply()
                guard reply.isSimple, reply.error == 0 else { throw RawClient.Failure(text: "answered \(reply)") }
                _ = try greedy.client.receive(byteCount)
                cookies.insert(reply.cookie)
            }
            return cookies.count
        }
        #expect(answered == sent)
        await server.stop()
    }

    /// One task at a time uses the client.
    private final class Holder: @unchecked Sendable {  // unchecked: see above
        let client: RawClient
        init(_ client: RawClient) { self.client = client }
    }
}

/// A disk of zeroes whose requests wait at a gate, if there is one for the name of its node.
private final class HoldingDisk: BlockDriver {
    static let formatName = "null-co"
    static let kind = DriverKind.protocol
    static let gates = Mutex<[String: Gate]>([:])

    let length: Int
    private let gate: Gate?

    static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .nullCo(let own) = options.branch else { throw BlockError(.invalidArgument, "not a test disk") }
        return HoldingDisk(byteCount: own.size ?? 1 << 20, gates.withLock { $0[options.nodeName ?? ""] })
    }

    private init(byteCount: Int, _ gate: Gate?) {
        length = byteCount
        self.gate = gate
    }

    func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        guard gate == nil else { return false }
        target.fill(with: 0)
        return true
    }

    func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        await gate?.pass()
        target.fill(with: 0)
    }

    func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool { true }
    func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {}

    /// Holds requests until it is opened, and counts them.
    final class Gate: Sendable {
        private struct State {
            var isOpen = false
            var most = 0
            var held: [CheckedContinuation<Void, Never>] = []
            var watcher: (count: Int, CheckedContinuation<Void, Never>)?
        }
        private let state = Mutex(State())

        /// The largest number that was held at once.
        var mostHeld: Int { state.withLock { $0.most } }

        func pass() async {
            await withCheckedContinuation { continuation in
                let ready = state.withLock { state -> [CheckedContinuation<Void, Never>] in
                    if state.isOpen { return [continuation] }
                    state.held.append(continuation)
                    state.most = max(state.most, state.held.count)
                    guard let watcher = state.watcher, state.held.count >= watcher.count else { return [] }
                    state.watcher = nil
                    return [watcher.1]
                }
                for one in ready { one.resume() }
            }
        }

        /// Waits until so many are held.
        func reached(_ count: Int) async {
            await withCheckedContinuation { continuation in
                let isThere = state.withLock { state in
                    if state.held.count < count { state.watcher = (count, continuation) }
                    return state.held.count >= count
                }
                if isThere { continuation.resume() }
            }
        }

        func open() {
            let all = state.withLock { state in
                state.isOpen = true
                defer { state.held = [] }
                return state.held
            }
            for one in all { one.resume() }
        }
    }
}
