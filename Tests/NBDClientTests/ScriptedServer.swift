import Foundation
import Glibc
import IOCore
import StrataBase
import StrataTesting
import Synchronization

/// A server on a unix socket that says what it is told to, one client after the other, on a thread of its own.
final class ScriptedServer: Sendable {
    let path: String
    private let isOver = Atomic<Bool>(false)
    private let hasEnded = Atomic<Bool>(false)
    private let clients = Atomic<Int>(0)

    /// Clients that have been let in so far.
    var clientCount: Int { clients.load(ordering: .acquiring) }

    /// - Parameter script: what to do with a client; the connection is closed when it returns.
    init(in folder: TemporaryFolder, _ script: @escaping @Sendable (Conversation) -> Void) throws {
        path = folder.path("scripted")
        let listener = try ListeningSocket(.unix(path: path))
        let thread = Thread { [self] in
            while !isOver.load(ordering: .acquiring) {
                var poll = pollfd(fd: listener.descriptor, events: Int16(POLLIN), revents: 0)
                guard Glibc.poll(&poll, 1, 50) > 0, let socket = try? listener.accept() else { continue }
                socket.setNonBlocking(false)
                clients.add(1, ordering: .releasing)
                script(Conversation(socket))
            }
            hasEnded.store(true, ordering: .releasing)
        }
        thread.start()
    }

    /// Returns when the thread has ended. No client may be there any more.
    func stop() {
        isOver.store(true, ordering: .releasing)
        _ = waitUntil { hasEnded.load(ordering: .acquiring) }
    }

    /// One client.
    struct Conversation {
        let socket: ConnectedSocket
        init(_ socket: ConnectedSocket) { self.socket = socket }

        func say(_ bytes: some Collection<UInt8>) {
            let bytes = Array(bytes)
            var sent = 0
            while sent < bytes.count {
                let count = bytes.withUnsafeBytes { Glibc.send(socket.descriptor, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL)) }
                if count <= 0 { return }
                sent += count
            }
        }

        /// The next bytes; nil when the client has left.
        func hear(_ count: Int) -> [UInt8]? {
            var bytes = [UInt8](repeating: 0, count: count)
            let received = recv(socket.descriptor, &bytes, count, Int32(MSG_WAITALL))
            return received == count ? bytes : nil
        }

        /// Says no more, and waits until the client leaves too.
        func hangUp() {
            shutdown(socket.descriptor, Int32(SHUT_WR))
            var bytes = [UInt8](repeating: 0, count: 4096)
            while recv(socket.descriptor, &bytes, bytes.count, 0) > 0 {}
        }
    }

    // MARK: What an honest server says

    static func big(_ value: UInt64, _ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - $0))) } }

    static func reply(to option: UInt64, _ type: UInt64, _ payload: [UInt8] = []) -> [UInt8] {
        big(0x0003_e889_0455_65a9, 8) + big(option, 4) + big(type, 4) + big(UInt64(payload.count), 4) + payload
    }

    static let greeting = Array("NBDMAGICIHAVEOPT".utf8) + [0, 3]

    /// Extended headers, `base:allocation` as context 7, and an export that can do everything, byte by byte. A client asks in this order.
    static func handshake(byteCount: UInt64 = 1 << 20, flags: UInt64 = 0x0ded) -> [UInt8] {
        greeting + reply(to: 11, 1) + reply(to: 10, 4, big(7, 4) + Array("base:allocation".utf8)) + reply(to: 10, 1)
            + reply(to: 7, 3, big(0, 2) + big(byteCount, 8) + big(flags, 2)) + reply(to: 7, 3, big(3, 2) + big(1, 4) + big(4096, 4) + big(32 << 20, 4)) + reply(to: 7, 1)
    }

    /// The bytes that such a client sends until it sends requests, for an export without a name.
    static let handshakeAnswerByteCount = 4 + 16 + (16 + 4 + 4 + 4 + 15) + (16 + 4 + 2 + 2)
    static let requestByteCount = 32

    static func chunk(_ type: UInt64, _ cookie: [UInt8], offset: UInt64, done: Bool = true, _ payload: [UInt8] = []) -> [UInt8] {
        big(0x6e8a_278c, 4) + big(done ? 1 : 0, 2) + big(type, 2) + cookie + big(offset, 8) + big(UInt64(payload.count), 8) + payload
    }
}
