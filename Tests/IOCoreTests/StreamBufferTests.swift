import Glibc
import IOCore
import StrataBase
import Testing

@Suite("stream buffers")
struct StreamBufferTests {
    private static func socketPair() -> (ConnectedSocket, ConnectedSocket) {
        var ends: [Int32] = [0, 0]
        _ = socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0, &ends)
        return (ConnectedSocket(adopting: ends[0]), ConnectedSocket(adopting: ends[1]))
    }

    private static func pattern(_ count: Int, _ seed: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: ($0 &+ seed) &* 31 &+ (($0 &+ seed) >> 8)) }
    }

    private static func buffer(_ bytes: [UInt8]) -> IOBuffer {
        let buffer = IOBuffer(byteCount: bytes.count)
        bytes.withUnsafeBytes { buffer.vector.copyIn($0.bytes, at: 0) }
        return buffer
    }

    private static func takeAll(_ socket: ConnectedSocket, limit: Int = .max) -> [UInt8] {
        var receive = ReceiveBuffer(byteCount: 64 << 10)
        var all: [UInt8] = []
        while all.count < limit, case .bytes = receive.receive(from: socket, limit: min(8192, limit - all.count)) { all += receive.takeUnread() }
        return all
    }

    @Test("everything comes out in the order in which it went in, however little the socket takes", arguments: 0..<4)
    func orderIsKept(seed: Int) throws {
        let (near, far) = Self.socketPair()
        near.setSendBuffer(byteCount: 8192)
        var state = UInt64(seed) &+ 1
        func random(_ below: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % below
        }
        // A file whose bytes are known, as the external source.
        let path = "/dev/shm/strata-stream-\(getpid())-\(seed)"
        defer { unlink(path) }
        let fileBytes = Self.pattern(1 << 20, 5)
        let file = open(path, O_RDWR | O_CREAT, 0o600)
        defer { close(file) }
        #expect(fileBytes.withUnsafeBytes { write(file, $0.baseAddress, $0.count) } == fileBytes.count)

        var queue = SendQueue(capacity: 4096)
        var expected: [UInt8] = []
        var received: [UInt8] = []
        var refusals = 0
        for step in 0..<120 {
            switch random(6) {
            case 0, 1:
                let bytes = Self.pattern(random(3000), step)
                queue.append(bytes)
                expected += bytes
            case 2:
                let bytes = Self.pattern(random(30_000), step)
                queue.append(Self.buffer(bytes), byteCount: bytes.count)
                expected += bytes
            case 3:
                let start = random(1 << 19), count = random(100_000)
                queue.append(externalAt: start, byteCount: count)
                expected += fileBytes[start..<(start + count)]
            case 4:
                queue.reserve(500)
                let bytes = Self.pattern(200, step)
                let source = Self.buffer(bytes)
                queue.reserved(at: 0, byteCount: 200).copy(from: source.vector)
                withExtendedLifetime(source) {}
                queue.commit(200)
                expected += bytes
            default:
                received += Self.takeAll(far, limit: random(60_000))
            }
            #expect(queue.byteCount >= 0)
            if random(2) == 0 { Self.send(&queue, near, file, fileBytes, &refusals, random(3) == 0) }
        }
        while !queue.isEmpty {
            Self.send(&queue, near, file, fileBytes, &refusals, false)
            received += Self.takeAll(far)
        }
        received += Self.takeAll(far)
        let mismatch = zip(received, expected).enumerated().first { $0.element.0 != $0.element.1 }?.offset
        #expect(mismatch == nil, "seed \(seed)")
        #expect(received.count == expected.count, "seed \(seed)")
    }

    private static func send(
        _ queue: inout SendQueue, _ socket: ConnectedSocket, _ file: Int32, _ fileBytes: [UInt8], _ refusals: inout Int, _ refuses: Bool
    ) {
        while true {
            switch queue.send(to: socket, locate: { position, _ in refuses ? nil : (file, position) }) {
            case .missing(let position, let byteCount):
                refusals += 1
                queue.supply(buffer(Array(fileBytes[position..<(position + byteCount)])))
            case .empty, .wouldBlock: return
            case .failed(let number):
                Issue.record("send failed: \(number)")
                return
            }
        }
    }

    @Test("a file that ends early is reported as missing bytes, not as success")
    func shortFile() throws {
        let (near, far) = Self.socketPair()
        let path = "/dev/shm/strata-short-\(getpid())"
        defer { unlink(path) }
        let file = open(path, O_RDWR | O_CREAT, 0o600)
        defer { close(file) }
        #expect(ftruncate(file, 1000) == 0)
        var queue = SendQueue(capacity: 4096)
        queue.append([1, 2, 3])
        queue.append(externalAt: 0, byteCount: 5000)
        #expect(queue.send(to: near) { position, _ in (file, position) } == .missing(position: 1000, byteCount: 4000))
        #expect(Self.takeAll(far) == [1, 2, 3] + [UInt8](repeating: 0, count: 1000))
    }

    @Test("a peer that is gone is a failure and no signal")
    func peerIsGone() {
        let near = {
            let (near, _) = Self.socketPair()
            return near
        }()
        var queue = SendQueue(capacity: 4096)
        queue.append([1])
        #expect(queue.send(to: near) { _, _ in nil } == .failed(EPIPE))
    }

    @Test("a receive buffer keeps pieces together when it runs against its end")
    func wrap() {
        let (near, far) = Self.socketPair()
        var receive = ReceiveBuffer(byteCount: 10_000)
        let bytes = Self.pattern(100_000, 3)
        var sent = 0
        var got: [UInt8] = []
        while got.count < bytes.count {
            if sent < bytes.count {
                let count = min(3000, bytes.count - sent)
                bytes[sent..<(sent + count)].withUnsafeBytes { part in
                    if case .bytes(let done) = near.send(part.bytes) { sent += done }
                }
            }
            guard case .bytes = receive.receive(from: far, limit: 3000) else { continue }
            // Takes all but some bytes, so that the rest has to move.
            let part = max(0, receive.unreadByteCount - (sent < bytes.count ? 1234 : 0))
            receive.withUnread { span in for index in 0..<part { got.append(span.checkedBigEndian(at: index)) } }
            receive.consume(part)
        }
        let isSame = got == bytes
        #expect(isSame)
    }
}
