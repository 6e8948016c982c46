import IOCore
import ManagedObjects
import NBDProtocol
import StrataBase
import Synchronization

/// Runs a client's handshake over a socket that has just been connected.
enum Negotiation {
    /// What came of it, and the bytes that came behind the handshake.
    struct Result<Outcome: Sendable>: Sendable {
        var session: Outcome
        /// Encrypted, if that was agreed on.
        var socket: ConnectedSocket
        var received: [UInt8]
    }

    /// Time in which a server must have agreed to an export, from connecting on.
    static let timeLimit = Duration.seconds(30)

    /// - Parameters:
    ///   - handshake: what is wanted of the server.
    ///   - security: what to encrypt with when the server agrees to TLS.
    ///   - context: the context whose thread this runs on.
    /// - Throws: the server's refusal, a broken protocol or connection, or `.timedOut`.
    static func run<Handshake: ClientNegotiation>(
        _ handshake: Handshake, over plain: ConnectedSocket, _ security: ClientSecurity?, context: IOContext
    ) async throws(BlockError) -> Result<Handshake.Outcome> {
        // TLS reads until there is nothing more: on a socket that blocks it would wait for what nobody sends.
        plain.setNonBlocking(true)
        var socket = plain
        var handshake = handshake
        var received = ReceiveBuffer(byteCount: 2 * (ClientHandshake.replyPayloadByteCount + 4096))
        var queue = SendQueue(capacity: 4096)
        let deadline = MonotonicTime.now + 30_000_000_000
        while true {
            var output = HandshakeOutput()
            let (consumed, verdict) = try received.withUnread { bytes throws(BlockError) in try handshake.advance(bytes, &output) }
            received.consume(consumed)
            queue.append(output.take())
            switch verdict {
            case .done(let session):
                // A last word (that the client leaves) is a courtesy: whether it arrives does not matter.
                _ = queue.send(to: socket, locate: { _, _ in nil })
                return Result(session: session, socket: socket, received: received.takeUnread())
            case .startTLS:
                guard let security, received.unreadByteCount == 0 else {
                    throw BlockError(.connection, "The NBD server broke the protocol: bytes came in clear after TLS was agreed on")
                }
                socket = try await encrypt(plain, security, context, deadline)
                var more = HandshakeOutput()
                handshake.tlsStarted(&more)
                queue.append(more.take())
            case .needsMore: if consumed > 0 { continue }
            }
            switch queue.send(to: socket, locate: { _, _ in nil }) {
            case .empty: break
            case .wouldBlock:
                try await wait(for: .writable, socket, context, deadline)
                continue
            case .failed(let number): throw BlockError(errno: number == 0 ? 104 : number, "Negotiating with the NBD server")
            case .missing: preconditionFailure("nothing that lies elsewhere is ever queued")
            }
            switch received.receive(from: socket, limit: 4096) {
            case .bytes: break
            case .wouldBlock: try await wait(for: .readable, socket, context, deadline)
            case .closed: throw BlockError(.connection, "The NBD server closed the connection during the negotiation")
            case .failed(let number): throw BlockError(errno: number, "Negotiating with the NBD server")
            }
        }
    }

    private static func encrypt(
        _ plain: ConnectedSocket, _ security: ClientSecurity, _ context: IOContext, _ deadline: Int64
    ) async throws(BlockError) -> ConnectedSocket {
        let session = try TLSSession(over: plain, security.use.object.credentials, hostName: security.hostName)
        while true {
            switch try session.handshake() {
            case .done: return ConnectedSocket(plain, encryptedBy: session)
            case .waits(let events): try await wait(for: events, plain, context, deadline)
            }
        }
    }

    private static func wait(for events: ReadyEvents, _ socket: ConnectedSocket, _ context: IOContext, _ deadline: Int64) async throws(BlockError) {
        let left = deadline - MonotonicTime.now
        guard left > 0 else { throw BlockError(.timedOut, "The NBD server did not finish the negotiation in \(timeLimit)") }
        let waiter = ReadinessWaiter()
        let token = try context.watch(socket.descriptor, for: events, waiter)
        let timer = context.schedule(after: .nanoseconds(left)) { waiter.ready([]) }
        await waiter.wait()
        timer.cancel()
        context.unwatch(token)
    }
}

/// What a client encrypts its connections with.
struct ClientSecurity: Sendable {
    let use: ObjectUse<any TLSCredentialObject>
    /// The name that the server's certificate must bear.
    let hostName: String?
}

/// Suspends one task until a socket is ready.
private final class ReadinessWaiter: EventSource {
    private let isReady = AsyncCondition(false)

    func ready(_ events: ReadyEvents) { isReady.update { $0 = true } }

    func wait() async { _ = await isReady.wait { $0 ? true : nil } }
}
