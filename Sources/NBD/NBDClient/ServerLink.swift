import IOCore
import NBDProtocol
import StrataBase
import Synchronization

/// A connection to the server that comes back when it is lost.
///
/// Requests wait while it is being brought back, for the reconnect delay, and are then sent again: NBD requests may be repeated, since writing the
/// same bytes twice is writing them once. After the delay they fail at once until the server is there again; trying never ends before `close`.
final class ServerLink: Sendable {
    struct Settings: Sendable {
        var address: ServerAddress
        var wishes: ClientHandshake.Wishes
        var security: ClientSecurity?
        /// How long requests wait for a lost connection, to begin with.
        var reconnectDelay: Duration
        /// Looks at what a server that came back offers. - Throws: why it will not do.
        var accepts: @Sendable (NBDClientSession) throws(BlockError) -> Void
    }

    fileprivate enum Phase {
        case up(ClientConnection)
        /// Lost, and being brought back; requests wait.
        case waiting
        /// The delay is over; requests fail.
        case failing(BlockError)
        case closed
    }

    fileprivate struct State {
        var phase: Phase
        var reconnectDelay: Duration
        /// Timers that have fired for the one who tries to connect.
        var ticks = 0
        var isReconnecting = false
        /// How often the connection was lost.
        var losses = 0
        /// What ended it the last time.
        var lossReason = ""
        /// Whether somebody listened when it was tried last.
        var foundPeer = false
        /// The socket of a negotiation under way, to be shut down when it is no longer wanted.
        var negotiating: ConnectedSocket?
    }

    private let settings: Settings
    private let context: IOContext
    private let state: AsyncCondition<State>

    /// Time between attempts: short first, because a server that restarts is back soon.
    private static let firstPause = Duration.milliseconds(20)
    private static let longestPause = Duration.seconds(1)

    /// - Parameter context: watches the sockets; it outlives the link.
    init(_ settings: Settings, context: IOContext) {
        self.settings = settings
        self.context = context
        state = AsyncCondition(State(phase: .failing(BlockError(.connection, "Not connected yet")), reconnectDelay: settings.reconnectDelay))
    }

    // MARK: Connecting

    /// Connects for the first time. On the context.
    /// - Parameter patience: how long to try again; zero tries once.
    func open(patience: Duration) async throws(BlockError) -> NBDClientSession {
        let deadline = MonotonicTime.now + patience.wholeNanoseconds
        var pause = Self.firstPause
        while true {
            do throws(BlockError) {
                return try await connect()
            } catch {
                // A server that answers and says no will say it again. Where nobody listens somebody may soon.
                let isFinal = [.notFound, .accessDenied, .unsupported, .invalidArgument].contains(error.code) && state.withLock { $0.foundPeer }
                if isFinal || MonotonicTime.now >= deadline { throw error }
            }
            await context.sleep(for: pause)
            pause = min(pause * 2, Self.longestPause)
        }
    }

    /// One attempt. On the context.
    private func connect() async throws(BlockError) -> NBDClientSession {
        let address = settings.address
        state.withLock { $0.foundPeer = false }
        let attempt = await BlockingPool.run { () -> Result<ConnectedSocket, BlockError> in
            do throws(BlockError) { return .success(try address.connect()) } catch { return .failure(error) }
        }
        let socket = try attempt.get()
        socket.setNonBlocking(true)
        let isWanted = state.withLock { state in
            if case .closed = state.phase { return false }
            state.foundPeer = true
            state.negotiating = socket
            return true
        }
        guard isWanted else { throw BlockError(.cancelled, "The node is being closed") }
        defer { state.withLock { $0.negotiating = nil } }
        let result = try await Negotiation.run(ClientHandshake(settings.wishes), over: socket, settings.security, context: context)
        try settings.accepts(result.session)
        let connection = ClientConnection(result.socket, session: result.session, received: result.received, context: context) { [weak self] error in self?.lost(error) }
        if let error = await connection.begin() { throw error }
        let refusal: BlockError? = state.update { state in
            if case .closed = state.phase { return BlockError(.cancelled, "The node is being closed") }
            // Lost before anybody could be told of it: it would never be brought back.
            if connection.isOver.load(ordering: .sequentiallyConsistent) { return BlockError(.connection, "The NBD server closed the connection") }
            state.phase = .up(connection)
            return nil
        }
        if let refusal {
            await connection.close()
            throw refusal
        }
        Trace.nbdClientConnected(server: "\(address)")
        return result.session
    }

    /// On the context: the connection broke.
    private func lost(_ error: BlockError) {
        Trace.nbdClientLost(server: "\(settings.address)", reason: error.description)
        let delay = state.withLock { $0.reconnectDelay }
        let loss: Int? = state.update { state in
            guard case .up = state.phase else { return nil }
            state.phase = delay > .zero ? .waiting : .failing(error)
            state.isReconnecting = true
            state.losses += 1
            state.lossReason = error.message
            return state.losses
        }
        guard let loss else { return }
        if delay > .zero {
            context.schedule(after: delay) { [weak self] in
                self?.state.update { state in if case .waiting = state.phase, state.losses == loss { state.phase = .failing(error) } }
            }
        }
        context.spawn { await self.reconnect() }
    }

    private func reconnect() async {
        var pause = Self.firstPause
        while !isClosed {
            do throws(BlockError) {
                _ = try await connect()
                break
            } catch {
                state.update { state in if case .failing = state.phase { state.phase = .failing(error) } }
            }
            await rest(pause)
            pause = min(pause * 2, Self.longestPause)
        }
        state.update { $0.isReconnecting = false }
    }

    private var isClosed: Bool {
        state.withLock { state in
            if case .closed = state.phase { return true }
            return false
        }
    }

    /// Waits for a while, or until the link is closed.
    private func rest(_ time: Duration) async {
        let before = state.withLock { $0.ticks }
        let timer = context.schedule(after: time) { [weak self] in self?.state.update { $0.ticks += 1 } }
        _ = await state.wait { state in
            if case .closed = state.phase { return true }
            return state.ticks != before ? true : nil
        }
        timer.cancel()
    }

    /// How long requests wait from the next loss of the connection on.
    func setReconnectDelay(_ delay: Duration) { state.withLock { $0.reconnectDelay = delay } }

    // MARK: Requests

    /// Sends a request, again if need be, and waits for its answer.
    /// - Throws: `.connection` when the server is gone for longer than the delay. An answer that says no is an outcome.
    func perform(_ request: ClientRequest) async throws(BlockError) -> ClientOutcome {
        Trace.nbdClientRequestBegin(server: "\(settings.address)", command: "\(request.command)", offset: request.offset, bytes: request.byteCount)
        defer { Trace.nbdClientRequestEnd(server: "\(settings.address)", command: "\(request.command)", offset: request.offset, bytes: request.byteCount) }
        while true {
            let connection: ClientConnection
            if let up = state.withLock({ $0.connection }) { connection = up } else { connection = try await nextConnection() }
            let outcome = await connection.perform(request)
            guard case .lost = outcome else { return outcome }
            // The one whose connection broke tells us so before it answers its requests or right after: wait until it has.
            _ = await state.wait { state in state.connection === connection ? nil : true }
            let (delay, reason) = state.withLock { ($0.reconnectDelay, $0.lossReason) }
            if delay == .zero { throw BlockError(.connection, "Lost the connection to NBD server \(settings.address): \(reason)") }
        }
    }

    private func nextConnection() async throws(BlockError) -> ClientConnection {
        let result = await state.wait { state -> Result<ClientConnection, BlockError>? in
            switch state.phase {
            case .up(let connection): .success(connection)
            case .waiting: nil
            case .failing(let error): .failure(error)
            case .closed: .failure(BlockError(.cancelled, "The node is being closed"))
            }
        }
        do throws(BlockError) { return try result.get() } catch { throw error.during("NBD server \(settings.address)") }
    }

    /// Says goodbye. No request is under way. Returns when nothing of the link runs any more.
    func close() async {
        let (connection, negotiating) = state.update { state in
            let found = (state.connection, state.negotiating)
            state.phase = .closed
            return found
        }
        negotiating?.shutDown()
        if let connection { await connection.close() }
        _ = await state.wait { $0.isReconnecting ? nil : true }
    }
}

extension ServerLink.State {
    var connection: ClientConnection? {
        if case .up(let connection) = phase { return connection }
        return nil
    }
}

extension Duration {
    /// Whole nanoseconds, at most some centuries.
    fileprivate var wholeNanoseconds: Int64 {
        let (seconds, attoseconds) = components
        return min(max(seconds, 0), 1 << 32) * 1_000_000_000 + attoseconds / 1_000_000_000
    }
}
