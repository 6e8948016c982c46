import IOCore
import NBDProtocol
import StrataBase
import Synchronization

/// One connection to a server in the transmission phase.
///
/// An actor whose executor is the I/O context that watches the socket. Requests that are made in one turn of the context go out together at its
/// end. Replies are parsed where they were received; the data of a long read goes from the socket straight into the reader's memory.
///
/// A request's memory is used until the request is over, and it is over only when its reply is complete and its payload has left: a server that
/// answers a write before it has all of it gets the rest nevertheless.
actor ClientConnection: ContextActor, EventSource {
    private struct Waiting {
        var continuation: CheckedContinuation<ClientOutcome, Never>
        var request: ClientRequest
        /// `SendQueue.sentByteCount` when the request's payload has left.
        var sentAt: Int
        var extent: (byteCount: Int, flags: UInt32)?
    }

    /// What the next bytes from the server are.
    private enum Incoming {
        case replies
        /// Data for a read; what of it is still to come.
        case data(IOVector)
    }

    nonisolated let context: IOContext
    nonisolated let session: NBDClientSession
    private let socket: ConnectedSocket
    private var transmission: ClientTransmission
    private var receiveBuffer = ReceiveBuffer(byteCount: ClientConnection.receiveBufferByteCount)
    private var sendQueue = SendQueue(capacity: 64 << 10)
    /// Everything that was ever put into the send queue, in bytes.
    private var queuedByteCount = 0
    private var incoming = Incoming.replies
    /// By slot of `transmission`.
    private var waiting: [Waiting?] = []
    /// Answered requests whose payload is still on its way out.
    private var answered: [(Waiting, ClientOutcome)] = []
    private var watchToken: WatchToken?
    private var watchedEvents: ReadyEvents = []
    private var isSendBlocked = false
    private var isFlushPosted = false
    private var isClosed = false
    /// The same for any thread: no request is answered any more.
    nonisolated let isOver = Atomic<Bool>(false)
    private let onLost: @Sendable (BlockError) -> Void

    /// The longest chunk that has to lie in one piece, and room to receive more.
    private static let receiveBufferByteCount = ClientTransmission.chunkPayloadByteCount + 2 * receiveByteCount
    /// Bytes received at a time. What is longer goes straight to where it belongs.
    private static let receiveByteCount = 64 << 10
    /// Payloads up to this many bytes are copied, so that a batch of small writes leaves in one piece.
    private static let copiedPayloadByteCount = 16 << 10
    /// Bytes taken in one turn before others get theirs.
    private static let turnByteCount = 4 << 20

    /// Takes over a socket whose handshake is done. On the context's thread.
    /// - Parameters:
    ///   - received: bytes that came behind the handshake.
    ///   - onLost: called once on the context's thread when the connection is over, unless `close` ended it.
    init(_ socket: ConnectedSocket, session: NBDClientSession, received: [UInt8], context: IOContext, onLost: @escaping @Sendable (BlockError) -> Void) {
        self.socket = socket
        self.session = session
        self.context = context
        self.onLost = onLost
        transmission = ClientTransmission(session)
        receiveBuffer.append(received)
    }

    /// Starts to listen. On the context's thread.
    /// - Returns: why that is not possible.
    func begin() -> BlockError? {
        do throws(BlockError) {
            watchToken = try context.watch(socket.descriptor, for: .readable, self)
            watchedEvents = .readable
        } catch { return error }
        if receiveBuffer.unreadByteCount > 0 { postFlush() }
        return nil
    }

    /// Sends a request and waits for its answer. From any task.
    nonisolated func perform(_ request: ClientRequest) async -> ClientOutcome {
        await withCheckedContinuation { continuation in
            if context.isCurrent {
                assumeIsolated { $0.submit(request, continuation) }
            } else {
                context.post { self.assumeIsolated { $0.submit(request, continuation) } }
            }
        }
    }

    /// Says goodbye and lets go of the socket. No request is under way.
    func close() {
        guard !isClosed else { return }
        let (_, frame) = transmission.begin(.disconnect, offset: 0, byteCount: 0)
        enqueue(frame)
        _ = sendQueue.send(to: socket) { _, _ in nil }
        end()
    }

    // MARK: Sending

    private func submit(_ request: ClientRequest, _ continuation: CheckedContinuation<ClientOutcome, Never>) {
        guard !isClosed else { return continuation.resume(returning: .lost) }
        var flags = request.flags
        if session.replyStyle == .extended, request.command == .write { flags.insert(.payloadLength) }
        let (slot, frame) = transmission.begin(
            request.command, flags: flags, offset: UInt64(request.offset), byteCount: UInt64(request.byteCount))
        enqueue(frame)
        if request.command == .write, let memory = request.memory {
            if memory.byteCount <= Self.copiedPayloadByteCount {
                sendQueue.reserve(memory.byteCount)
                sendQueue.reserved(at: 0, byteCount: memory.byteCount).copy(from: memory)
                sendQueue.commit(memory.byteCount)
            } else {
                sendQueue.append(memoryOf: memory)
            }
            queuedByteCount += memory.byteCount
        }
        while waiting.count <= slot { waiting.append(nil) }
        waiting[slot] = Waiting(continuation: continuation, request: request, sentAt: queuedByteCount)
        postFlush()
    }

    private func enqueue(_ frame: RequestFrame) {
        if session.replyStyle == .extended {
            sendQueue.append(RequestFrame.extendedSize) { frame.encodeExtended(into: &$0) }
            queuedByteCount += RequestFrame.extendedSize
        } else {
            sendQueue.append(RequestFrame.encodedSize) { frame.encode(into: &$0) }
            queuedByteCount += RequestFrame.encodedSize
        }
    }

    /// Sends when everybody who can run now has had a turn: their requests leave together.
    private func postFlush() {
        if isFlushPosted { return }
        isFlushPosted = true
        context.post {
            self.assumeIsolated {
                $0.isFlushPosted = false
                $0.turn(receives: $0.socket.hasPending)
            }
        }
    }

    /// False when the connection is over.
    private func send() -> Bool {
        if isSendBlocked || sendQueue.isEmpty { return true }
        switch sendQueue.send(to: socket, locate: { _, _ in nil }) {
        case .empty: break
        case .wouldBlock: isSendBlocked = true
        case .failed(let number):
            lose(BlockError(errno: number == 0 ? 104 : number, "Sending to the NBD server"))
            return false
        case .missing: preconditionFailure("nothing that lies elsewhere is ever queued")
        }
        if !answered.isEmpty { finishAnswered() }
        return true
    }

    /// Ends requests that were answered before they were sent, once they are.
    private func finishAnswered() {
        let sent = sendQueue.sentByteCount
        for (request, outcome) in answered where request.sentAt <= sent { request.continuation.resume(returning: outcome) }
        answered.removeAll { $0.0.sentAt <= sent }
    }

    // MARK: Receiving

    nonisolated func ready(_ events: ReadyEvents) {
        assumeIsolated { connection in
            if !events.isDisjoint(with: [.writable, .hangUp]) { connection.isSendBlocked = false }
            connection.turn(receives: true)
        }
    }

    private func turn(receives: Bool) {
        guard !isClosed, send() else { return }
        var taken = 0
        while true {
            guard parse() else { return }
            guard receives, taken < Self.turnByteCount else { break }
            switch receive() {
            case .bytes(let count):
                taken += count
                continue
            case .wouldBlock: break
            case .closed: return lose(BlockError(.connection, "The NBD server closed the connection"))
            case .failed(let number): return lose(BlockError(errno: number, "Receiving from the NBD server"))
            }
            break
        }
        var events: ReadyEvents = .readable
        if isSendBlocked { events.insert(.writable) }
        if events != watchedEvents, let watchToken {
            watchedEvents = events
            context.changeWatch(watchToken, to: events)
        }
        if socket.hasPending { postFlush() }
    }

    private func receive() -> ConnectedSocket.Outcome {
        if case .data(let target) = incoming {
            // Everything in the receive buffer has been used: the rest comes without a stop there.
            let outcome = socket.receive(into: target)
            if case .bytes(let count) = outcome { received(count, of: target) }
            return outcome
        }
        return receiveBuffer.receive(from: socket, limit: Self.receiveByteCount)
    }

    private func received(_ count: Int, of target: IOVector) {
        incoming = count == target.byteCount ? .replies : .data(target.slice(at: count, byteCount: target.byteCount - count))
    }

    /// Uses what is in the receive buffer. False when the connection is over.
    private func parse() -> Bool {
        while true {
            if case .data(let target) = incoming {
                let count = min(target.byteCount, receiveBuffer.unreadByteCount)
                if count > 0 {
                    target.slice(at: 0, byteCount: count).copy(from: receiveBuffer.unread(at: 0, byteCount: count))
                    receiveBuffer.consume(count)
                    received(count, of: target)
                }
                if case .data = incoming { return true }
            }
            let event: ClientTransmission.Event
            do throws(DecodingFailure) {
                let (consumed, next) = try receiveBuffer.withUnread { bytes throws(DecodingFailure) in try transmission.consume(bytes) }
                receiveBuffer.consume(consumed)
                event = next
            } catch {
                lose(BlockError(.connection, "The NBD server broke the protocol: \(error)"))
                return false
            }
            switch event {
            case .needsMore: return true
            case .nothing: continue
            case .data(let slot, let at, let byteCount):
                guard let memory = waiting[slot]?.request.memory else { preconditionFailure("data comes for reads only, and a read has memory") }
                incoming = .data(memory.slice(at: at, byteCount: byteCount))
            case .zeroes(let slot, let at, let byteCount):
                waiting[slot]?.request.memory?.slice(at: at, byteCount: byteCount).zero()
            case .extent(let slot, let byteCount, let flags):
                waiting[slot]?.extent = (byteCount, flags)
            case .finished(let slot, let failure):
                guard let request = waiting[slot] else { continue }
                waiting[slot] = nil
                finish(request, failure)
            }
        }
    }

    private func finish(_ request: Waiting, _ failure: ClientTransmission.Failure?) {
        let outcome: ClientOutcome =
            if let failure { .failed(failure) } else if let extent = request.extent { .extent(byteCount: extent.byteCount, flags: extent.flags) } else { .done }
        if sendQueue.sentByteCount >= request.sentAt { request.continuation.resume(returning: outcome) } else { answered.append((request, outcome)) }
    }

    // MARK: The end

    /// The connection is of no more use: whoever waits for an answer hears so.
    private func lose(_ error: BlockError) {
        guard !isClosed else { return }
        end()
        onLost(error)
    }

    private func end() {
        isClosed = true
        isOver.store(true, ordering: .sequentiallyConsistent)
        if let watchToken { context.unwatch(watchToken) }
        watchToken = nil
        socket.shutDown()
        // Nothing refers to the requests' memory any more before they are told.
        sendQueue = SendQueue(capacity: 0)
        incoming = .replies
        let left = waiting
        waiting = []
        for case let request? in left { request.continuation.resume(returning: .lost) }
        for (request, _) in answered { request.continuation.resume(returning: .lost) }
        answered = []
    }
}
