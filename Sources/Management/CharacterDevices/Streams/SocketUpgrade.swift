import IOCore
import ManagedObjects
import StrataBase
import Synchronization

/// What has to happen on a new connection before its conversation begins: TLS, then the opening of a websocket. It ends in success or failure
/// within ten seconds, whatever the peer does or does not. On the context's thread.
final class SocketUpgrade: EventSource {
    /// Which layers there are between the socket and the conversation. Telnet needs no time: its wishes go out with the first bytes.
    struct Plan: Sendable {
        var security: Security?
        var isWebSocket = false
        var isTelnet = false

        var takesTime: Bool { security != nil || isWebSocket }

        /// The innermost layer that all kinds of connections may have.
        func finish(_ stream: any ByteStream) -> any ByteStream { isTelnet ? TelnetStream(stream) : stream }
    }

    enum Security: Sendable {
        case server(ServerSecurity)
        /// - host: the name that the server's certificate must bear.
        case client(ObjectUse<any TLSCredentialObject>, host: String?)

        func makeSession(over socket: ConnectedSocket) throws(BlockError) -> TLSSession {
            switch self {
            case .server(let security): try security.makeSession(over: socket)
            case .client(let use, let host): try TLSSession(over: socket, use.object.credentials, hostName: host)
            }
        }

        func admit(_ session: TLSSession) throws(BlockError) {
            if case .server(let security) = self { try security.admit(session) }
        }
    }

    private enum Phase {
        case encrypting(TLSSession)
        case opening(WebSocketRequest)
        /// The answer to the opening, and how much of it is sent; then comes the stream, or the end.
        case answering([UInt8], sentCount: Int, early: [UInt8]?)
        case ended
    }

    private struct State {
        var phase = Phase.ended
        /// What the next phase talks over.
        var socket: ConnectedSocket
        var watch: WatchToken?
        var timer: IOTimer?
        var isFinished = false
    }

    /// Time for all of it.
    private static let patience = Duration.seconds(10)

    private let plan: Plan
    private let context: IOContext
    private let finished: @Sendable (Result<any ByteStream, BlockError>) -> Void
    private let state: Mutex<State>

    /// - Parameter finished: called once, on the context's thread.
    init(_ socket: ConnectedSocket, _ plan: Plan, context: IOContext, finished: @escaping @Sendable (Result<any ByteStream, BlockError>) -> Void) {
        self.plan = plan
        self.context = context
        self.finished = finished
        state = Mutex(State(socket: socket))
    }

    func start() {
        let socket = state.withLock { $0.socket }
        socket.setNonBlocking(true)
        do throws(BlockError) {
            let first: Phase
            if let security = plan.security { first = .encrypting(try security.makeSession(over: socket)) } else { first = .opening(WebSocketRequest()) }
            let watch = try context.watch(socket.descriptor, for: .readable, self)
            let timer = context.schedule(after: Self.patience) { [weak self] in
                self?.finish(.failure(BlockError(.connection, "The peer took more than \(Self.patience) to begin")))
            }
            state.withLock { state in
                state.phase = first
                state.watch = watch
                state.timer = timer
            }
        } catch {
            return finish(.failure(error))
        }
        advance()
    }

    /// Gives up, for somebody who has no more use for the connection.
    func cancel() { finish(.failure(BlockError(.cancelled, "The connection is not wanted any more"))) }

    func ready(_ events: ReadyEvents) { advance() }

    private func advance() {
        do throws(BlockError) {
            while true {
                let (phase, socket) = state.withLock { ($0.phase, $0.socket) }
                switch phase {
                case .ended: return
                case .encrypting(let session):
                    if case .waits(let events) = try session.handshake() { return wait(for: events) }
                    try plan.security?.admit(session)
                    let encrypted = ConnectedSocket(socket, encryptedBy: session)
                    state.withLock { state in
                        state.socket = encrypted
                        state.phase = .opening(WebSocketRequest())
                    }
                    if !plan.isWebSocket { return finish(.success(plan.finish(DescriptorStream(encrypted)))) }
                case .opening(let request):
                    guard let next = try receive(request, from: socket) else { return wait(for: .readable) }
                    state.withLock { $0.phase = next }
                case .answering(let bytes, let sentCount, let early):
                    if sentCount < bytes.count {
                        guard let count = try send(bytes, from: sentCount, to: socket) else { return wait(for: .writable) }
                        state.withLock { $0.phase = .answering(bytes, sentCount: sentCount + count, early: early) }
                        continue
                    }
                    guard let early else { throw BlockError(.connection, "The client did not ask for a websocket") }
                    return finish(.success(plan.finish(WebSocketStream(DescriptorStream(socket), early: early))))
                }
            }
        } catch {
            finish(.failure(error))
        }
    }

    /// - Returns: nil when the request is not complete and nothing more has come.
    private func receive(_ request: WebSocketRequest, from socket: ConnectedSocket) throws(BlockError) -> Phase? {
        let (outcome, bytes) = socket.receive(atMost: WebSocketRequest.limit)
        switch outcome {
        case .bytes: break
        case .wouldBlock: return nil
        case .closed: throw BlockError(.connection, "The client has gone")
        case .failed(let number): throw BlockError(errno: number, "Reading the client's request")
        }
        var request = request
        return switch request.receive(bytes) {
        case .incomplete: .opening(request)
        case .accepted(let answer, let rest): .answering(answer, sentCount: 0, early: rest)
        case .refused(let answer): .answering(answer, sentCount: 0, early: nil)
        }
    }

    /// - Returns: nil when the socket takes nothing at the moment.
    private func send(_ bytes: [UInt8], from start: Int, to socket: ConnectedSocket) throws(BlockError) -> Int? {
        switch socket.send(bytes, from: start) {
        case .bytes(let count): return count
        case .wouldBlock: return nil
        case .closed: throw BlockError(.connection, "The client has gone")
        case .failed(let number): throw BlockError(errno: number, "Answering the client's request")
        }
    }

    private func wait(for events: ReadyEvents) {
        if let watch = state.withLock({ $0.watch }) { context.changeWatch(watch, to: events) }
    }

    private func finish(_ result: Result<any ByteStream, BlockError>) {
        let (wasFinished, watch, timer, socket) = state.withLock { state in
            defer {
                state.isFinished = true
                state.phase = .ended
                state.watch = nil
                state.timer = nil
            }
            return (state.isFinished, state.watch, state.timer, state.socket)
        }
        if wasFinished { return }
        if let watch { context.unwatch(watch) }
        timer?.cancel()
        if case .failure = result { socket.shutDown() }
        finished(result)
    }
}
