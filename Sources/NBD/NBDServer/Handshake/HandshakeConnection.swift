import IOCore
import ManagedObjects
import NBDProtocol
import StrataBase

/// One client that has not chosen an export yet. Runs the pure handshake over a socket, in bounded memory: a client that does not read its
/// answers is not listened to.
actor HandshakeConnection: ContextActor, EventSource {
    /// What became of it.
    enum Outcome: Sendable {
        /// The answers are sent; the bytes are what came behind the handshake.
        case transmission(NBDSession, received: [UInt8])
        case closed
    }

    private enum End {
        case transmission(NBDSession)
        case startTLS
        case close
    }

    nonisolated let context: IOContext
    /// The socket as it was accepted.
    private let plainSocket: ConnectedSocket
    /// The socket in use: encrypted after TLS has begun.
    private(set) var socket: ConnectedSocket
    private let exports: NBDExportTable
    private let security: ServerSecurity?
    /// The session while its handshake runs.
    private var beginningTLS: TLSSession?
    private var onEnd: (@Sendable (HandshakeConnection, Outcome) -> Void)?

    private var handshake: ServerHandshake
    private var receiveBuffer = ReceiveBuffer(byteCount: OptionFrame.encodedSize + NBDLimit.optionPayloadByteCount + HandshakeConnection.receiveByteCount)
    private var sendQueue = SendQueue(capacity: 4096)
    private var end: End?
    /// The export that was chosen, while the answer is on its way.
    private(set) var chosen: NBDExport?
    private var watchToken: WatchToken?
    private var watchedEvents: ReadyEvents = []

    private static let receiveByteCount = 4096
    /// With more than this unsent nothing further is answered.
    private static let unsentLimit = 64 << 10

    /// - Parameter onEnd: called once, on the context's thread.
    init(
        _ socket: ConnectedSocket, context: IOContext, exports: NBDExportTable, security: ServerSecurity? = nil,
        onEnd: @escaping @Sendable (HandshakeConnection, Outcome) -> Void
    ) {
        plainSocket = socket
        self.socket = socket
        self.context = context
        self.exports = exports
        self.security = security
        handshake = ServerHandshake(encryption: security == nil ? .none : .required)
        self.onEnd = onEnd
    }

    /// Greets and starts to listen. On the context's thread.
    func begin() {
        var output = HandshakeOutput()
        handshake.greet(&output)
        sendQueue.append(output.bytes)
        do throws(BlockError) {
            Trace.nbdNegotiateBegin(client: self)
            watchToken = try context.watch(socket.descriptor, for: .readable, self)
            watchedEvents = .readable
            turn()
        } catch {
            finish(.closed)
        }
    }

    /// Gives up: the time is over, or the server stops.
    func close() { finish(.closed) }

    nonisolated func ready(_ events: ReadyEvents) {
        assumeIsolated { connection in
            if events.contains(.hangUp), !events.contains(.readable) { connection.finish(.closed) } else { connection.turn() }
        }
    }

    private func turn() {
        while onEnd != nil {
            if let session = beginningTLS {
                switch continueTLS(session) {
                case .waits(let events): return watch(for: events)
                case .done: break
                case nil: return finish(.closed)
                }
            }
            answer()
            let sent = sendQueue.send(to: socket) { _, _ in nil }
            switch sent {
            case .empty: break
            case .wouldBlock: return watch(for: .writable)
            case .failed, .missing: return finish(.closed)
            }
            switch end {
            case .transmission(let session): return finish(.transmission(session, received: receiveBuffer.takeUnread()))
            case .startTLS:
                guard beginTLS() else { return finish(.closed) }
                continue
            case .close: return finish(.closed)
            case nil: break
            }
            switch receiveBuffer.receive(from: socket, limit: Self.receiveByteCount) {
            case .bytes: continue
            case .wouldBlock: return watch(for: .readable)
            case .closed, .failed: return finish(.closed)
            }
        }
    }

    private func answer() {
        while end == nil, sendQueue.byteCount < Self.unsentLimit {
            var output = HandshakeOutput()
            let (consumed, verdict) = receiveBuffer.withUnread { handshake.consume($0, exports: exports, &output) }
            if Trace.isNbdNegotiateOptionOn, consumed > 0 { traceOption() }
            receiveBuffer.consume(consumed)
            sendQueue.append(output.bytes)
            switch verdict {
            case .transmission(let session):
                end = .transmission(session)
                chosen = exports.find(session.export.name)
                chosen?.expectClient()
            case .startTLS: end = .startTLS
            case .close: end = .close
            case .needsMore: if consumed == 0 { return }
            }
        }
    }

    /// Tells of the option at the front of the buffer; other parts of the handshake are none.
    private func traceOption() {
        guard let option = receiveBuffer.withUnread({ try? OptionFrame(decoding: $0) }) else { return }
        Trace.nbdNegotiateOption(client: self, option: option.option.rawValue, bytes: option.payloadByteCount)
    }

    /// The client has been told to go on over TLS. What it sent in clear behind its wish is not listened to: it may be somebody else's.
    private func beginTLS() -> Bool {
        end = nil
        guard let security, receiveBuffer.unreadByteCount == 0 else { return false }
        beginningTLS = try? security.makeSession(over: plainSocket)
        return beginningTLS != nil
    }

    /// - Returns: nil when it has failed or the client is not let in.
    private func continueTLS(_ session: TLSSession) -> TLSSession.Progress? {
        guard let progress = try? session.handshake() else { return nil }
        if progress == .done {
            beginningTLS = nil
            guard let security, (try? security.admit(session)) != nil else { return nil }
            socket = ConnectedSocket(plainSocket, encryptedBy: session)
            handshake.tlsStarted()
        }
        return progress
    }

    private func watch(for events: ReadyEvents) {
        guard let watchToken, events != watchedEvents else { return }
        watchedEvents = events
        context.changeWatch(watchToken, to: events)
    }

    private func finish(_ outcome: Outcome) {
        guard let report = onEnd else { return }
        onEnd = nil
        Trace.nbdNegotiateEnd(client: self, outcome: outcome.traceText)
        if let watchToken { context.unwatch(watchToken) }
        watchToken = nil
        if case .closed = outcome { socket.shutDown() }
        report(self, outcome)
        // By now it is served, or never will be.
        chosen?.stopExpectingClient()
        chosen = nil
    }
}

extension HandshakeConnection.Outcome {
    /// For traces.
    fileprivate var traceText: String {
        switch self {
        case .transmission(let session, _): "chose export '\(session.export.name)'"
        case .closed: "closed"
        }
    }
}
