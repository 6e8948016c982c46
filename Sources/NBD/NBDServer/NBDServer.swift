package import BlockExports
package import IOCore
package import ManagedObjects
import NBDProtocol
package import StrataBase
import Synchronization

/// An NBD server: listens, greets clients, and hands those that have chosen an export to it.
///
/// Lives on one context, where clients are accepted and handshakes run; served clients run on the contexts of their export.
package actor NBDServer: ContextActor {
    package struct Configuration: Sendable, Hashable {
        package var addresses: [HostAddress]
        /// For those of the addresses that are TCP.
        package var tcp: TCPSettings
        /// Time from accepting a client until it must have chosen an export; nil for no limit.
        package var handshakeLimit: Duration?
        /// Clients at a time, those that are still greeting included; nil for no limit. Further ones wait to be accepted.
        package var maximumConnections: Int?
        /// Clients are only let in over TLS; nil: never.
        package var security: ServerSecurity?

        package init(
            addresses: [HostAddress], tcp: TCPSettings = TCPSettings(), handshakeLimit: Duration? = .seconds(10), maximumConnections: Int? = 100,
            security: ServerSecurity? = nil
        ) {
            self.addresses = addresses
            self.tcp = tcp
            self.security = security
            self.handshakeLimit = handshakeLimit
            self.maximumConnections = maximumConnections
        }
    }

    /// A client in its handshake.
    private struct Greeted {
        var connection: HandshakeConnection
        var deadline: Int64
    }

    package nonisolated let context: IOContext
    package nonisolated let table = NBDExportTable()
    package nonisolated let configuration: Configuration
    private let registry: BlockExportRegistry
    private var acceptors: [Acceptor] = []
    /// In the order of their deadlines: all have the same time.
    private var handshakes: [Greeted] = []
    private var clientCount = 0
    private var isAccepting = false
    private var isSweeping = false
    private var isStopped = false

    /// - Parameter registry: where the server's exports are entered too; stopping the server removes them there.
    package init(_ configuration: Configuration, context: IOContext, registry: BlockExportRegistry) {
        self.configuration = configuration
        self.context = context
        self.registry = registry
    }

    /// Starts to listen on every address, or on none.
    /// - Throws: the kernel's refusal, with the address.
    package func start() throws(BlockError) {
        ProcessSignals.ignoreBrokenPipes()
        var opened: [ListeningSocket] = []
        do throws(BlockError) {
            for address in configuration.addresses { opened += try ListeningSocket.all(address, tcp: configuration.tcp) }
        } catch {
            for socket in opened { socket.removeSocketFile() }
            throw error
        }
        acceptors = opened.map { Acceptor($0, server: self) }
        try resumeAccepting()
    }

    /// Where the server listens; TCP ports that the kernel chose are filled in.
    package var addresses: [HostAddress] {
        acceptors.map { acceptor in
            if case .tcp(let host, _) = acceptor.socket.address { return .tcp(host: host, port: String(acceptor.socket.port)) }
            return acceptor.socket.address
        }
    }

    /// Offers an export under its name.
    /// - Throws: `.alreadyExists` for a name or id that is taken; the export is not used then, and its maker shuts it down.
    package func offer(_ export: NBDExport) async throws(BlockError) {
        if isStopped { throw BlockError(.invalidArgument, "NBD server not running") }
        try await registry.checkNewID(export.id)
        try table.add(export)
        do throws(BlockError) {
            try await registry.add(export)
        } catch {
            table.withdraw(export)
            throw error
        }
    }

    /// Stops listening, disconnects every client and removes every export of this server. Returns when nothing of it is left.
    package func stop() async {
        if isStopped { return }
        isStopped = true
        pauseAccepting()
        for acceptor in acceptors { acceptor.socket.removeSocketFile() }
        acceptors = []
        let greeted = handshakes
        handshakes = []  // so that none of them is looked for among all the others
        for greeted in greeted { await greeted.connection.close() }
        let table = table
        // Those too that somebody else has begun to remove: their ids are taken until they are gone.
        await registry.removeAll { ($0 as? NBDExport)?.belongs(to: table) ?? false }
    }

    // MARK: Clients

    /// Serves a client that is connected already, as if it had come to a listening socket. It counts among the clients.
    package func adopt(_ socket: ConnectedSocket) {
        if isStopped { return }
        socket.setNonBlocking(true)
        greet(socket)
    }

    private func resumeAccepting() throws(BlockError) {
        guard !isAccepting, !isStopped else { return }
        isAccepting = true
        for acceptor in acceptors { acceptor.token = try context.watch(acceptor.socket.descriptor, for: .readable, acceptor) }
    }

    private func pauseAccepting() {
        isAccepting = false
        for acceptor in acceptors {
            if let token = acceptor.token { context.unwatch(token) }
            acceptor.token = nil
        }
    }

    fileprivate func accept(from listener: ListeningSocket) {
        while isAccepting {
            if let most = configuration.maximumConnections, clientCount >= most { return pauseAccepting() }
            do throws(BlockError) {
                guard let socket = try listener.accept() else { return }
                greet(socket)
            } catch {
                // Out of descriptors or memory: others must let go of some first.
                pauseAccepting()
                context.schedule(after: .milliseconds(100)) { self.assumeIsolated { $0.tryToResume() } }
            }
        }
    }

    private func tryToResume() {
        do throws(BlockError) { try resumeAccepting() } catch {
            context.schedule(after: .milliseconds(100)) { self.assumeIsolated { $0.tryToResume() } }
        }
    }

    private func greet(_ socket: ConnectedSocket) {
        clientCount += 1
        let connection = HandshakeConnection(socket, context: context, exports: table, security: configuration.security) { connection, outcome in
            self.assumeIsolated { $0.handshakeIsOver(connection, outcome) }
        }
        if let limit = configuration.handshakeLimit {
            handshakes.append(Greeted(connection: connection, deadline: MonotonicTime.now + limit.nanoseconds))
            sweepLater()
        } else {
            handshakes.append(Greeted(connection: connection, deadline: .max))
        }
        connection.assumeIsolated { $0.begin() }
    }

    private func handshakeIsOver(_ connection: HandshakeConnection, _ outcome: HandshakeConnection.Outcome) {
        if let index = handshakes.firstIndex(where: { $0.connection === connection }) { handshakes.remove(at: index) }
        // The one that the client was told of: under its name there may be another one by now.
        guard !isStopped, case .transmission(let session, let received) = outcome, let export = connection.assumeIsolated({ $0.chosen }) else {
            return clientIsGone()
        }
        let context = context
        let isServed = export.serve(connection.assumeIsolated { $0.socket }, session, received: received) {
            context.post { self.assumeIsolated { $0.clientIsGone() } }
        }
        if !isServed { clientIsGone() }
    }

    private func clientIsGone() {
        clientCount -= 1
        tryToResume()
    }

    /// One timer for all handshakes: a crowd of silent clients costs one look each second.
    private func sweepLater() {
        if isSweeping || handshakes.isEmpty { return }
        isSweeping = true
        context.schedule(after: .seconds(1)) { self.assumeIsolated { $0.sweep() } }
    }

    private func sweep() {
        isSweeping = false
        let now = MonotonicTime.now
        let expired = handshakes.prefix { $0.deadline <= now }
        for greeted in expired { greeted.connection.assumeIsolated { $0.close() } }
        sweepLater()
    }
}

/// One listening socket of a server.
private final class Acceptor: EventSource, Sendable {
    let socket: ListeningSocket
    private let server: NBDServer
    private let watch = Mutex<WatchToken?>(nil)

    init(_ socket: ListeningSocket, server: NBDServer) {
        self.socket = socket
        self.server = server
    }

    var token: WatchToken? {
        get { watch.withLock { $0 } }
        set { watch.withLock { $0 = newValue } }
    }

    func ready(_ events: ReadyEvents) {
        server.assumeIsolated { $0.accept(from: socket) }
    }
}

extension Duration {
    /// Whole nanoseconds, at most some centuries.
    fileprivate var nanoseconds: Int64 {
        let (seconds, attoseconds) = components
        return min(max(seconds, 0), 1 << 32) * 1_000_000_000 + attoseconds / 1_000_000_000
    }
}
