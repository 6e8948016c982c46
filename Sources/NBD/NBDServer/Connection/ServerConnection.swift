package import BlockGraph
package import IOCore
package import NBDProtocol
import StrataBase

/// One client in the transmission phase.
///
/// An actor whose executor is the I/O context that serves it: the event loop calls `ready`, which enters the actor without a switch, and one
/// turn receives what has come, answers every whole request in it and sends the answers together. A request that the backend can answer at
/// once is answered within the turn, straight into the send queue. Others are taken by workers, long-lived tasks on the same context, and are
/// answered in whatever order they finish.
///
/// What a client sends is never trusted: `RequestRules` decides on every request before anything acts on it, memory is bounded by
/// `ConnectionLimits`, and the worst that a client can do is to lose its own connection.
package actor ServerConnection: ContextActor, SpinningSource {
    /// How the connection stands.
    enum Phase {
        case running
        /// No more requests are read (the client said goodbye, or left); what was accepted is finished and answered.
        case draining
        case closed
    }

    /// What the next bytes from the client are.
    package enum Incoming: Sendable {
        case header
        /// The payload of a refused write, to be dropped; bytes still to come.
        case skipping(Int)
        /// A long payload, received straight into its buffer.
        case payload(LongWrite)
    }

    /// A write whose payload has a buffer of its own.
    package struct LongWrite: Sendable {
        let frame: RequestFrame
        let buffer: IOBuffer
        /// The beginning of the payload that has arrived.
        var received = 0
        /// The beginning of the payload that has been written.
        var written = 0
        /// Whether the next piece may be written before the rest has arrived.
        var isWrittenAhead: Bool
    }

    /// A request that could not be answered within its turn.
    struct QueuedRequest {
        var frame: RequestFrame
        /// What its replies repeat. Not the frame's own when that is the rest of a longer request.
        var reference: ReplyFormat.Reference
        /// The contexts that a block status request is about.
        var metaContexts: [MetaContext] = []
        /// A write's data.
        var payload: IOBuffer?
        /// The beginning of it that has been written already.
        var payloadStart = 0
        /// Counts against `ConnectionLimits.bytesInFlight`.
        var heldByteCount: Int

        init(_ frame: RequestFrame, payload: IOBuffer? = nil, heldByteCount: Int = 0) {
            self.frame = frame
            reference = frame.reference
            self.payload = payload
            self.heldByteCount = heldByteCount
        }
    }

    package nonisolated let context: IOContext
    /// Where the connection is going to be served: no request is begun here any more, and when the last one is answered a successor takes over there.
    var destination: IOContext?

    let backend: BlockBackend
    /// The bitmaps behind contexts that show some, by the context's number.
    let bitmaps: [UInt32: DirtyBitmap]
    let writesThrough: Bool
    private let session: NBDSession
    let rules: RequestRules
    let metaContexts: [MetaContext]
    let format: ReplyFormat
    /// With this much unsent answers go out although more requests are there.
    let sendBatch: Int
    /// Bytes before a request's payload.
    let requestHeaderSize: Int

    let socket: ConnectedSocket
    private var watchToken: WatchToken?
    private var watchedEvents: ReadyEvents = []

    var phase = Phase.running
    var incoming = Incoming.header
    var receiveBuffer: ReceiveBuffer
    var sendQueue = SendQueue(capacity: ConnectionLimits.sendBufferByteCount)
    /// The socket took no more; it will say when it does.
    private var isSendBlocked = false
    /// A worker is fetching bytes that could not be sent from a file.
    private var isSupplying = false
    private var hasLargeSendBuffer = false
    private var isTurnPosted = false
    private var spinPolicy = SpinPolicy()
    /// Requests seen, for the spin policy and for statistics.
    var requestCount = 0

    var queue: [QueuedRequest] = []
    var queueStart = 0
    let parking = TaskParking()
    var workerCount = 0
    var requestsInFlight = 0
    var bytesInFlight = 0

    private let onClosed: @Sendable (ServerConnection) -> Void
    private let onMoving: @Sendable (_ old: ServerConnection, _ new: ServerConnection) -> Bool
    private var whenOver: [CheckedContinuation<Void, Never>] = []
    private var isOver = false
    /// Somebody else has the socket now.
    private var isMoved = false

    /// Takes over a socket whose handshake is done.
    /// - Parameters:
    ///   - received: bytes that came behind the handshake.
    ///   - incoming: what they are, when they are not the beginning of a request.
    ///   - onMoving: called on the context's thread when another connection is going to serve the socket; false keeps this one in charge.
    ///   - onClosed: called once on the context's thread, when the last request is over and the socket is not used any more. Not for a connection that
    ///     has been moved.
    package init(
        socket: ConnectedSocket, session: NBDSession, backend: BlockBackend, bitmaps: [UInt32: DirtyBitmap], writesThrough: Bool, context: IOContext, received: [UInt8],
        incoming: Incoming = .header, onMoving: @escaping @Sendable (_ old: ServerConnection, _ new: ServerConnection) -> Bool,
        onClosed: @escaping @Sendable (ServerConnection) -> Void
    ) {
        self.socket = socket
        self.backend = backend
        self.bitmaps = bitmaps
        self.writesThrough = writesThrough
        self.context = context
        self.session = session
        self.incoming = incoming
        self.onMoving = onMoving
        self.onClosed = onClosed
        rules = RequestRules(session)
        metaContexts = session.metaContexts
        format = session.replyStyle
        sendBatch = socket.isEncrypted ? ConnectionLimits.encryptedSendBatch : ConnectionLimits.unsent
        requestHeaderSize = session.replyStyle == .extended ? RequestFrame.extendedSize : RequestFrame.encodedSize
        receiveBuffer = ReceiveBuffer(byteCount: max(received.count, ConnectionLimits.receiveBufferByteCount))
        receiveBuffer.append(received)
    }

    /// Starts serving. Call once, from anywhere.
    package nonisolated func start() {
        context.post { self.assumeIsolated { $0.begin() } }
    }

    private func begin() {
        guard phase != .closed else { return }
        do throws(BlockError) {
            watchToken = try context.watch(socket.descriptor, for: .readable, self)
            watchedEvents = .readable
            Trace.nbdSessionBegin(client: self, export: backend.name, structured: format != .simple)
            turn()
        } catch {
            close()
        }
    }

    /// Ends the connection: requests that have begun are finished, no further ones are read, and no answers are sent any more.
    /// Returns when the connection uses nothing any longer.
    package func shutDown() async {
        close()
        // Looked at inside: others may run on this actor between the decision to wait and the waiting.
        await withCheckedContinuation { waiter in
            if isOver { waiter.resume() } else { whenOver.append(waiter) }
        }
    }

    // MARK: Moving to another I/O thread

    /// Has the client served on another context from the next moment on when no request of his is under way. Any thread.
    package nonisolated func move(to context: IOContext) {
        self.context.post {
            self.assumeIsolated { connection in
                guard connection.phase == .running else { return }
                connection.destination = context === connection.context ? nil : context
                connection.turn()
            }
        }
    }

    /// Lets a successor on the other context go on with the socket and with what has been received.
    /// - Returns: whether this connection has nothing more to do.
    private func handOver() -> Bool {
        guard let destination, phase == .running, requestsInFlight == 0, sendQueue.isEmpty else { return false }
        let received = receiveBuffer.takeUnread()
        let successor = ServerConnection(
            socket: socket, session: session, backend: backend, bitmaps: bitmaps, writesThrough: writesThrough, context: destination, received: received,
            incoming: incoming, onMoving: onMoving, onClosed: onClosed)
        self.destination = nil
        guard onMoving(self, successor) else {
            receiveBuffer.append(received)
            return false
        }
        Trace.nbdSessionMove(client: self, thread: destination.name)
        if let watchToken { context.unwatch(watchToken) }
        watchToken = nil
        phase = .closed
        isMoved = true
        successor.start()
        parking.unparkAll()
        endIfOver()
        return true
    }

    // MARK: Events

    package nonisolated func ready(_ events: ReadyEvents) {
        assumeIsolated { $0.handle(events) }
    }

    package nonisolated func spin() -> Bool {
        assumeIsolated { $0.lookForMore() }
    }

    private func handle(_ events: ReadyEvents) {
        spinPolicy.wokenBySocket(now: MonotonicTime.now)
        if events.contains(.writable) { isSendBlocked = false }
        if events.contains(.hangUp) {
            // Nobody is there to be answered. What has arrived is still carried out if we can get at it; otherwise waiting has no end.
            if !mayReceive || phase == .draining {
                close()
                return
            }
            isSendBlocked = false
        }
        turn()
    }

    private func lookForMore() -> Bool {
        guard phase == .running, destination == nil else { return false }
        switch receiveBuffer.receive(from: socket, limit: ConnectionLimits.receiveByteCount) {
        case .bytes:
            spinPolicy.foundBySpinning()
            turn()
            return true
        case .wouldBlock:
            return false
        case .closed:
            phase = .draining
            turn()
            return true
        case .failed:
            close()
            return true
        }
    }

    /// Runs a turn as soon as the jobs that are runnable now have run: their answers go out together.
    func postTurn() {
        if isTurnPosted { return }
        isTurnPosted = true
        context.post {
            self.assumeIsolated {
                $0.isTurnPosted = false
                $0.turn()
            }
        }
    }

    /// Answers what can be answered, until the socket has no more or the client must first take its answers.
    private func turn() {
        guard phase != .closed else { return }
        let requestsBefore = requestCount
        var received = 0
        receiving: while true {
            guard parse() else { return close() }
            if sendQueue.byteCount >= ConnectionLimits.sendBatch { send() }
            guard mayReceive, received < ConnectionLimits.turnByteCount else { break }
            switch receive() {
            case .bytes(let count): received += count
            case .wouldBlock: break receiving
            case .closed:
                phase = .draining
                break receiving
            case .failed: return close()
            }
        }
        send()
        guard phase != .closed, !handOver() else { return }
        if phase == .draining, requestsInFlight == 0, sendQueue.isEmpty { return close() }
        updateWatch()
        if socket.hasPending, mayReceive { postTurn() }
        let isSingle = requestCount &- requestsBefore == 1 && requestsInFlight == 0 && sendQueue.isEmpty && phase == .running
        if spinPolicy.turnIsOver(isSingle: isSingle, now: MonotonicTime.now) {
            context.spin(self, nanoseconds: ConnectionLimits.spinNanoseconds)
        }
    }

    /// Whether the next request may be looked at. A client that does not take its answers, or has enough under way, waits.
    var mayAccept: Bool {
        destination == nil && sendQueue.byteCount <= ConnectionLimits.unsent && requestsInFlight < ConnectionLimits.requestsInFlight
            && bytesInFlight < ConnectionLimits.bytesInFlight
    }

    private var mayReceive: Bool {
        guard phase == .running, destination == nil else { return false }
        if case .header = incoming { return mayAccept && receiveBuffer.unreadByteCount < ConnectionLimits.receiveByteCount }
        return true
    }

    private func receive() -> ConnectedSocket.Outcome {
        if case .payload(var write) = incoming, receiveBuffer.unreadByteCount == 0 {
            let outcome = socket.receive(into: write.buffer.vector(at: write.received, byteCount: write.buffer.byteCount - write.received))
            if case .bytes(let count) = outcome {
                write.received += count
                incoming = .payload(write)
            }
            return outcome
        }
        return receiveBuffer.receive(from: socket, limit: ConnectionLimits.receiveByteCount)
    }

    private func updateWatch() {
        guard let watchToken else { return }
        var events: ReadyEvents = []
        if mayReceive { events.insert(.readable) }
        if isSendBlocked { events.insert(.writable) }
        if events == watchedEvents { return }
        watchedEvents = events
        context.changeWatch(watchToken, to: events)
    }

    // MARK: Sending

    /// Sends what the socket takes.
    func send() {
        if isSendBlocked || isSupplying || sendQueue.isEmpty { return }
        let backend = backend
        let outcome = sendQueue.send(to: socket) { position, byteCount in
            guard let place = backend.hostFileRange(of: GuestRange(GuestOffset(position), byteCount: byteCount)) else { return nil }
            return (place.descriptor, place.offset)
        }
        switch outcome {
        case .empty: break
        case .wouldBlock:
            isSendBlocked = true
            Trace.nbdSendBlocked(client: self, unsent: sendQueue.byteCount)
        case .failed: close()
        case .missing(let position, let byteCount):
            isSupplying = true
            requestsInFlight += 1
            context.spawn { await self.supply(GuestRange(GuestOffset(position), byteCount: byteCount)) }
        }
    }

    /// Reads what was promised from a file that cannot be named any more. The header is on its way, so that an error can only end the connection.
    private func supply(_ range: GuestRange) async {
        let buffer = IOBuffer(byteCount: range.byteCount)
        do throws(BlockError) {
            try await backend.read(buffer.vector, at: range.start, flags: [])
            if phase != .closed { sendQueue.supply(buffer) }
        } catch {
            close()
        }
        withExtendedLifetime(buffer) {}
        isSupplying = false
        finishedRequest(heldByteCount: 0)
    }

    /// Lets the kernel take large replies whole, from the first one on.
    func prepareForLargeReads() {
        if hasLargeSendBuffer { return }
        hasLargeSendBuffer = true
        socket.setSendBuffer(byteCount: ConnectionLimits.kernelSendBuffer)
    }

    // MARK: The end

    /// Lets go of the socket. Requests that have begun run to their end.
    func close() {
        if phase != .closed {
            phase = .closed
            Trace.nbdSessionClosing(client: self, unfinished: requestsInFlight)
            if let watchToken { context.unwatch(watchToken) }
            watchToken = nil
            socket.shutDown()
            for request in queue[queueStart...] {
                requestsInFlight -= 1
                bytesInFlight -= request.heldByteCount
            }
            queue = []
            queueStart = 0
            parking.unparkAll()
        }
        endIfOver()
    }

    /// Tells whoever waits that the last request is over.
    func endIfOver() {
        guard phase == .closed, requestsInFlight == 0, workerCount == 0, !isOver else { return }
        isOver = true
        Trace.nbdSessionEnd(client: self)
        for waiter in whenOver { waiter.resume() }
        whenOver = []
        if !isMoved { onClosed(self) }
    }
}
