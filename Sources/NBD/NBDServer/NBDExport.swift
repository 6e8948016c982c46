import BlockExports
package import BlockGraph
package import IOCore
package import NBDProtocol
import StrataBase
import Synchronization

/// A node that NBD clients can reach under a name.
///
/// Connections are spread over its contexts, and stay there until the node moves to another I/O thread; all of them share one backend, so that a flush
/// on one covers what any of them has written.
package final class NBDExport: BlockExport {
    package static let typeName = "nbd"

    package let id: String
    /// The node at the root, which changes when an overlay goes on top.
    package var nodeName: String { backend.nodeName }
    /// What clients ask for.
    package let name: String
    package let description: String?
    package let isWritable: Bool
    /// Every write is on stable storage when it is answered, whether the client asks for that or not.
    package let writesThrough: Bool
    package let backend: BlockBackend
    /// What block status requests can be answered for.
    package let metaContexts: [MetaContext]
    /// Whether a client may open several connections: false where further ones would wait for the first to end.
    package let allowsSeveralConnections: Bool
    /// The bitmaps behind contexts that show some, by the context's number.
    private let bitmaps: [UInt32: DirtyBitmap]
    private let release: @Sendable () async -> Void
    private let state: Mutex<State>

    private struct State {
        var connections: [ObjectIdentifier: ServerConnection] = [:]
        /// Clients whose choice of this export is being answered, and who are not served yet.
        var expectedClients = 0
        /// Where clients that come are served.
        var contexts: [IOContext]
        /// Gives further ones when a second client comes.
        var furtherContexts: (@Sendable () -> [IOContext])?
        var isShuttingDown = false
        /// The list that the export is or was on: its server's.
        var table: ObjectIdentifier?
        /// Takes the export off its server's list.
        var withdraw: (@Sendable () -> Void)?
        /// Told when the last client has left.
        var idle: (@Sendable () -> Void)?

        /// The first of those with the fewest clients.
        var leastUsedContext: IOContext {
            func clients(on context: IOContext) -> Int { connections.values.count { $0.context === context } }
            return contexts.min { clients(on: $0) < clients(on: $1) } ?? contexts[0]
        }
    }

    /// - Parameters:
    ///   - contexts: at least one; where clients are served.
    ///   - furtherContexts: asked once, when a client comes while another is there: where those that come are served too, until the node moves.
    ///   - release: gives the backend back; called once, when no client uses it any more.
    package init(
        id: String, name: String, description: String? = nil, isWritable: Bool, writesThrough: Bool = false, backend: BlockBackend,
        contexts: [IOContext], furtherContexts: (@Sendable () -> [IOContext])? = nil, metaContexts: [MetaContext] = [.baseAllocation], bitmaps: [UInt32: DirtyBitmap] = [:], allowsSeveralConnections: Bool = true,
        release: @escaping @Sendable () async -> Void = {}
    ) {
        precondition(!contexts.isEmpty, "an export is served somewhere")
        self.id = id
        self.name = name
        self.description = description
        self.isWritable = isWritable
        self.writesThrough = writesThrough
        self.backend = backend
        self.metaContexts = metaContexts
        self.allowsSeveralConnections = allowsSeveralConnections
        self.bitmaps = bitmaps
        state = Mutex(State(contexts: contexts, furtherContexts: furtherContexts))
        self.release = release
    }

    /// What clients are told at this moment.
    package var wireDescription: ExportDescription {
        var flags: NBDTransmissionFlags = [.sendFlush, .sendFUA, .sendCache]
        if allowsSeveralConnections { flags.insert(.canMultiConn) }
        if isWritable { flags.formUnion([.sendTrim, .sendWriteZeroes, .sendFastZero]) } else { flags.insert(.readOnly) }
        return ExportDescription(name: name, description: description, byteCount: backend.length, flags: flags, metaContexts: metaContexts)
    }

    /// A client counts from the moment when its choice of this export is accepted, before it hears so: nobody who knows that he is a client
    /// loses the export to a safe removal.
    package var isInUse: Bool { state.withLock { !$0.connections.isEmpty || $0.expectedClients > 0 } }

    package var connectionCount: Int { state.withLock { $0.connections.count } }

    /// Serves clients there: those that come, and each one that is connected from his next moment without a request under way.
    package func move(to context: IOContext) {
        let connections = state.withLock { state in
            state.contexts = [context]
            state.furtherContexts = nil
            return Array(state.connections.values)
        }
        for connection in connections { connection.move(to: context) }
    }

    /// A connection is going to be continued by another one.
    /// - Returns: false when it is too late for that, because the export is being shut down.
    private func replace(_ old: ServerConnection, by new: ServerConnection) -> Bool {
        let latest: IOContext? = state.withLock { state in
            guard !state.isShuttingDown, state.connections.removeValue(forKey: ObjectIdentifier(old)) != nil else { return nil }
            state.connections[ObjectIdentifier(new)] = new
            return state.contexts[0]
        }
        // The export may have moved again since.
        if let latest, latest !== new.context { new.move(to: latest) }
        return latest != nil
    }

    /// Notes whose list the export is on.
    /// - Parameter withdraw: takes it off; called when the export is shut down.
    func noteTable(_ table: NBDExportTable, _ withdraw: @escaping @Sendable () -> Void) {
        state.withLock {
            $0.table = ObjectIdentifier(table)
            $0.withdraw = withdraw
        }
    }

    /// Whether the export is on that list, or was until it began to be shut down.
    func belongs(to table: NBDExportTable) -> Bool { state.withLock { $0.table == ObjectIdentifier(table) } }

    /// Notes a client whose choice is about to be answered. Each call is followed by one of `stopExpectingClient`.
    func expectClient() { state.withLock { $0.expectedClients += 1 } }

    /// The client that was expected is served, or gone.
    func stopExpectingClient() { state.withLock { $0.expectedClients -= 1 } }

    /// Serves a client whose handshake is done.
    /// - Parameter onClosed: called when the connection is over, on the thread that served it.
    /// - Returns: false when the export is being shut down; the socket is not used then.
    func serve(_ socket: ConnectedSocket, _ session: NBDSession, received: [UInt8], onClosed: @escaping @Sendable () -> Void) -> Bool {
        spread()
        let connection: ServerConnection? = state.withLock { state in
            if state.isShuttingDown { return nil }
            let context = state.leastUsedContext
            let connection = ServerConnection(
                socket: socket, session: session, backend: backend, bitmaps: bitmaps, writesThrough: writesThrough, context: context, received: received,
                onMoving: { [weak self] old, new in self?.replace(old, by: new) ?? false },
                onClosed: { [weak self] connection in
                    self?.forget(connection)
                    onClosed()
                })
            state.connections[ObjectIdentifier(connection)] = connection
            return connection
        }
        connection?.start()
        return connection != nil
    }

    /// A client comes: if it is not the only one, the threads that may serve further ones are wanted.
    private func spread() {
        guard let start = state.withLock({ $0.connections.isEmpty ? nil : $0.furtherContexts }) else { return }
        // Threads may begin here: not inside the lock.
        let further = start()
        state.withLock { state in
            // Unless the node has moved meanwhile.
            if state.furtherContexts != nil { state.contexts += further }
            state.furtherContexts = nil
        }
    }

    /// Calls `idle` each time when the last client has left, on the thread that served it.
    package func whenIdle(_ idle: @escaping @Sendable () -> Void) { state.withLock { $0.idle = idle } }

    private func forget(_ connection: ServerConnection) {
        let idle = state.withLock { state in
            state.connections.removeValue(forKey: ObjectIdentifier(connection))
            return state.connections.isEmpty ? state.idle : nil
        }
        idle?()
    }

    package func shutDown() async {
        let (isFirst, connections, withdraw) = state.withLock { state in
            let isFirst = !state.isShuttingDown
            state.isShuttingDown = true
            let withdraw = state.withdraw
            state.withdraw = nil
            return (isFirst, Array(state.connections.values), withdraw)
        }
        withdraw?()
        for connection in connections { await connection.shutDown() }
        if isFirst { await release() }
    }
}
