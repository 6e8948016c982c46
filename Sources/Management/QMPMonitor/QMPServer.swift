package import CharacterDevices
package import IOCore
package import QAPIRuntime
package import StorageSchema
package import StrataBase
import Synchronization

/// All monitors of a process or of an embedded graph: they share the commands and every one of them hears every event.
///
/// Everything but `send` is called on the thread of the context that the server was made with; handlers run there too.
package final class QMPServer: Sendable {
    private struct State {
        var listeners: [ClientListener] = []
        var connections: [ObjectIdentifier: QMPConnection] = [:]
        var throttle = EventThrottle()
        /// When the timer that looks after held events fires; nil: none is set.
        var wakeUp: Int64?
        var isStopping = false
    }

    /// Clients at once; more are turned away, since each may hold memory.
    private static let connectionLimit = 256

    private let commands: [String: CommandEntry]
    private let version: VersionInfo
    private let policy: CompatPolicy
    private let context: IOContext
    private let clock: MonitorClock
    private let state = Mutex(State())

    /// - Parameters:
    ///   - policy: what becomes of deprecated and unstable commands, parameters, values and events.
    ///   - clock: what rate limits of events go by; the context's timers unless a test has its own.
    package init(
        commands: [CommandEntry], version: VersionInfo = .current, policy: CompatPolicy = CompatPolicy(), context: IOContext,
        clock: MonitorClock? = nil
    ) {
        self.commands = Dictionary(commands.map { ($0.name, $0) }, uniquingKeysWith: { first, _ in first })
        self.version = version
        self.policy = policy
        self.clock = clock ?? .of(context)
        self.context = context
    }

    /// Serves every client that connects to `socket`, each in a conversation of its own.
    /// - Parameter pretty: indent messages.
    package func listen(on socket: ListeningSocket, pretty: Bool = false) throws(BlockError) {
        let listener = ClientListener(socket, context: context) { [weak self] client in self?.serve(client, pretty: pretty) }
        try listener.start()
        state.withLock { $0.listeners.append(listener) }
    }

    /// Serves everybody who talks over a character device, from now on.
    /// - Throws: `.permissionConflict` when somebody uses the device already.
    package func serve(on device: any CharacterDevice, pretty: Bool = false) throws(BlockError) {
        try device.attach(MonitorFrontend(self, pretty: pretty))
    }

    /// Serves a client that is connected already.
    package func serve(_ client: ConnectedSocket, pretty: Bool = false) {
        serve(DescriptorStream(client), pretty: pretty)
    }

    /// Serves whoever is at the other end of a stream.
    /// - Parameter ended: called when the conversation is over, or at once when there is none to be had.
    package func serve(_ stream: any ByteStream, pretty: Bool = false, ended: @escaping @Sendable () -> Void = {}) {
        let connection = QMPConnection(
            session: QMPSession(commands: commands, version: version, policy: policy), stream: stream, pretty: pretty, context: context
        ) { [weak self] connection in
            _ = self?.state.withLock { $0.connections.removeValue(forKey: ObjectIdentifier(connection)) }
            ended()
        }
        let isWelcome = state.withLock { state in
            if state.isStopping || state.connections.count >= Self.connectionLimit { return false }
            state.connections[ObjectIdentifier(connection)] = connection
            return true
        }
        // A connection that cannot be watched is dropped; its client sees the end of the stream.
        guard isWelcome else {
            stream.end()
            return ended()
        }
        do throws(BlockError) { try connection.start() } catch { connection.close() }
    }

    /// Sends an event to every client that has ended its negotiation, unless the policy hides it. Any thread.
    ///
    /// Of events that come faster than their rule allows, the first goes at once and the last when its period ends (`EventRateRule`).
    package func send(_ event: some QAPIEvent) {
        if policy.hides(type(of: event).specialFeatures) { return }
        Trace.qmpEvent(event: type(of: event).eventName)
        let message = QMPMessage.event(event, at: .now, policy: policy)
        let now = clock.now()
        let (isAdmitted, connections) = state.withLock { state in
            (state.throttle.admits(message, named: type(of: event).eventName, now: now), Array(state.connections.values))
        }
        if isAdmitted { for connection in connections { connection.sendEvent(message) } }
        watchHeldEvents()
    }

    /// Sees to it that somebody looks when the next period ends.
    private func watchHeldEvents() {
        let now = clock.now()
        let delay = state.withLock { state -> Int64? in
            guard !state.isStopping, let deadline = state.throttle.nextDeadline, state.wakeUp.map({ $0 > deadline }) ?? true else { return nil }
            state.wakeUp = deadline
            return max(0, deadline - now)
        }
        guard let delay else { return }
        clock.callLater(delay) { [weak self] in self?.sendHeldEvents() }
    }

    private func sendHeldEvents() {
        let now = clock.now()
        let (messages, connections) = state.withLock { state in
            state.wakeUp = nil
            return (state.throttle.takeDue(now: now), Array(state.connections.values))
        }
        for message in messages { for connection in connections { connection.sendEvent(message) } }
        watchHeldEvents()
    }

    /// Takes no more clients, lets running commands and unsent answers finish for up to `patience`, and closes every conversation.
    package func stop(patience: Duration = .seconds(1)) async {
        let (listeners, connections) = state.withLock { state in
            state.isStopping = true
            defer { state.listeners = [] }
            return (state.listeners, Array(state.connections.values))
        }
        for listener in listeners { listener.stop() }
        let clock = ContinuousClock()
        let deadline = clock.now + patience
        while connections.contains(where: { !$0.isIdle }), clock.now < deadline { await context.sleep(for: .milliseconds(1)) }
        for connection in connections { connection.close() }
    }
}

/// A monitor as the user of a character device.
private final class MonitorFrontend: ChardevFrontend {
    private let server: QMPServer
    private let pretty: Bool

    init(_ server: QMPServer, pretty: Bool) {
        self.server = server
        self.pretty = pretty
    }

    func opened(_ stream: any ByteStream, ended: @escaping @Sendable () -> Void) { server.serve(stream, pretty: pretty, ended: ended) }
}
