import CharacterDevices
import IOCore
import QAPIRuntime
import StrataBase
import Synchronization

/// Moves bytes between a client and its session and runs the session's calls.
///
/// Descriptors are read and written on the context's thread only; events may be sent from any thread. Both directions are bounded: a client
/// that does not read its answers is not read from, and it misses events.
final class QMPConnection: EventSource {
    /// Unsent bytes above which no further command is started.
    private static let outputLimit = 1 << 20
    /// Unsent bytes above which events are dropped.
    private static let eventLimit = 16 << 20
    private static let receiveSize = 1 << 14  // bytes

    private struct State {
        var session: QMPSession
        var output: [UInt8] = []
        var sentCount = 0
        /// A task is working on the queue.
        var isWorking = false
        var runningOutOfBand = 0
        var inputEnded = false
        /// `readPending` has asked for a turn.
        var willReadPending = false
        var isClosed = false
        var watchedInput: WatchToken?
        var watchedOutput: WatchToken?
        var watchedEvents: (input: ReadyEvents, output: ReadyEvents) = ([], [])

        var unsentCount: Int { output.count - sentCount }
    }

    private let context: IOContext
    private let stream: any ByteStream
    private let pretty: Bool
    private let whenClosed: @Sendable (QMPConnection) -> Void
    private let state: Mutex<State>
    private let passedDescriptors = PassedDescriptors()

    init(
        session: QMPSession, stream: any ByteStream, pretty: Bool, context: IOContext,
        whenClosed: @escaping @Sendable (QMPConnection) -> Void
    ) {
        self.context = context
        self.stream = stream
        self.pretty = pretty
        self.whenClosed = whenClosed
        state = Mutex(State(session: session))
    }

    /// Says hello and begins to listen. On the context's thread.
    func start() throws(BlockError) {
        let greeting = state.withLock { $0.session.greeting }
        stream.begin()
        if isDuplex, let descriptor = stream.inputDescriptor {
            let token = try context.watch(descriptor, for: .readable, self)
            state.withLock {
                $0.watchedInput = token
                $0.watchedEvents.input = .readable
            }
        } else {
            // Standard input may be a plain file, which is always ready and cannot be watched; standard output likewise.
            let inputToken = stream.inputDescriptor.flatMap { try? context.watch($0, for: .readable, self) }
            let outputToken = stream.outputDescriptor.flatMap { try? context.watch($0, for: [], self) }
            state.withLock {
                $0.watchedInput = inputToken
                $0.watchedOutput = outputToken
                $0.watchedEvents = (inputToken == nil ? [] : .readable, [])
            }
            if inputToken == nil, stream.inputDescriptor != nil { context.post { self.readUnwatchedInput() } }
        }
        send(greeting)
    }

    /// Whether one descriptor serves both directions.
    private var isDuplex: Bool { stream.inputDescriptor == stream.outputDescriptor && stream.inputDescriptor != nil }

    /// Whether nothing runs and everything is sent.
    var isIdle: Bool {
        state.withLock { $0.isClosed || (!$0.isWorking && $0.runningOutOfBand == 0 && $0.unsentCount == 0) }
    }

    // MARK: Input

    func ready(_ events: ReadyEvents) {
        if !events.isDisjoint(with: [.readable, .hangUp]) { readInput(evenIfBusy: events.contains(.hangUp)) }
        if events.contains(.hangUp) { stopWatchingEndedInput() }
        flush()
    }

    /// The end of the other side is reported again and again; once everything is read there is nothing to learn from it any more.
    private func stopWatchingEndedInput() {
        let (hasEnded, token) = state.withLock { state in
            defer { if state.inputEnded { state.watchedInput = nil } }
            return (state.inputEnded, state.inputEnded ? state.watchedInput : nil)
        }
        guard hasEnded else { return }
        if let token { context.unwatch(token) }
        // A socket that is closed at both ends has no use for answers; with two streams the other one may be open.
        if isDuplex { close() }
    }

    private func readUnwatchedInput() {
        let isOpen = state.withLock { !$0.inputEnded && !$0.isClosed }
        guard isOpen else { return }
        readInput(evenIfBusy: false)
        context.post { self.readUnwatchedInput() }
    }

    private func readInput(evenIfBusy: Bool) {
        let wantsInput = state.withLock { !$0.isClosed && !$0.inputEnded && (evenIfBusy || Self.mayRead($0)) }
        guard wantsInput else { return }
        let (outcome, bytes, descriptors) = stream.receive(atMost: Self.receiveSize)
        if !descriptors.isEmpty { passedDescriptors.add(descriptors) }
        switch outcome {
        case .bytes: take(bytes)
        case .wouldBlock: break
        case .closed:
            state.withLock { $0.inputEnded = true }
            finishIfDone()
        case .failed: close()
        }
    }

    private static func mayRead(_ state: borrowing State) -> Bool {
        state.session.queuedCount < QMPSession.queueLimit && state.unsentCount < outputLimit
    }

    private func take(_ bytes: [UInt8]) {
        let overtaking = state.withLock { state in
            let steps = state.session.receive(bytes)
            state.runningOutOfBand += steps.count
            return steps
        }
        for step in overtaking {
            context.spawn {
                await self.perform(step)
                self.state.withLock { $0.runningOutOfBand -= 1 }
                self.flush()
            }
        }
        startWorking()
    }

    // MARK: Work

    private func startWorking() {
        let hasWork = state.withLock { state in
            if state.isWorking || state.isClosed || state.session.queuedCount == 0 || state.unsentCount >= Self.outputLimit { return false }
            state.isWorking = true
            return true
        }
        if hasWork { context.spawn { await self.work() } }
    }

    private func work() async {
        while let step = nextStep() { await perform(step) }
        flush()
    }

    private func nextStep() -> QMPSession.Step? {
        state.withLock { state in
            if !state.isClosed, state.unsentCount < Self.outputLimit, let step = state.session.next() { return step }
            state.isWorking = false
            return nil
        }
    }

    private func perform(_ step: QMPSession.Step) async {
        switch step {
        case .reply(let message): send(message)
        case .call(let call):
            if let answer = await PassedDescriptors.$current.withValue(passedDescriptors, operation: { await call.run() }) { send(answer) }
        }
    }

    // MARK: Output

    private func send(_ message: JSONValue) {
        let line = encode(message)
        state.withLock { $0.output += line }
        if context.isCurrent { flush() } else { context.post { self.flush() } }
    }

    /// Sends an event if the client has ended the negotiation and keeps up with reading. Any thread.
    func sendEvent(_ message: JSONValue) {
        let line = encode(message)
        let isWanted = state.withLock { state in
            guard state.session.isNegotiated, !state.isClosed, state.unsentCount < Self.eventLimit else { return false }
            state.output += line
            return true
        }
        if isWanted { context.post { self.flush() } }
    }

    private func encode(_ message: JSONValue) -> [UInt8] {
        message.bytes(pretty: pretty) + [UInt8(ascii: "\r"), UInt8(ascii: "\n")]
    }

    /// Sends what the client takes. On the context's thread.
    private func flush() {
        let isBroken = state.withLock { state in
            while state.unsentCount > 0, !state.isClosed {
                switch stream.send(state.output, from: state.sentCount) {
                case .bytes(let count): state.sentCount += count
                case .wouldBlock:
                    // Sent bytes at the front are dropped once they are most of the buffer.
                    if state.sentCount > 1 << 16, state.sentCount > state.output.count / 2 {
                        state.output.removeFirst(state.sentCount)
                        state.sentCount = 0
                    }
                    return false
                case .closed, .failed: return true
                }
            }
            state.output.removeAll(keepingCapacity: state.output.capacity <= 1 << 16)
            state.sentCount = 0
            return false
        }
        if isBroken { return close() }
        startWorking()
        updateWatches()
        readPending()
        finishIfDone()
    }

    /// Bytes that a layer of the stream holds already make no descriptor readable.
    private func readPending() {
        guard stream.hasPending else { return }
        let isNew = state.withLock { state in
            if state.willReadPending || state.isClosed || state.inputEnded || !Self.mayRead(state) { return false }
            state.willReadPending = true
            return true
        }
        if !isNew { return }
        context.post {
            self.state.withLock { $0.willReadPending = false }
            self.readInput(evenIfBusy: false)
            self.flush()
        }
    }

    private func updateWatches() {
        let changes = state.withLock { state -> [(WatchToken, ReadyEvents)] in
            if state.isClosed { return [] }
            let reading: ReadyEvents = !state.inputEnded && Self.mayRead(state) ? .readable : []
            let writing: ReadyEvents = state.unsentCount > 0 ? .writable : []
            let wanted: (input: ReadyEvents, output: ReadyEvents) = isDuplex ? (reading.union(writing), []) : (reading, writing)
            var changes: [(WatchToken, ReadyEvents)] = []
            if wanted.input != state.watchedEvents.input, let token = state.watchedInput { changes.append((token, wanted.input)) }
            if wanted.output != state.watchedEvents.output, let token = state.watchedOutput { changes.append((token, wanted.output)) }
            state.watchedEvents = wanted
            return changes
        }
        for (token, events) in changes { context.changeWatch(token, to: events) }
    }

    // MARK: End

    /// A client that has stopped sending still gets all its answers.
    private func finishIfDone() {
        let isDone = state.withLock { state in
            state.inputEnded && !state.isWorking && state.runningOutOfBand == 0 && state.session.queuedCount == 0 && state.unsentCount == 0
        }
        if isDone { close() }
    }

    /// Ends the conversation at once. On the context's thread.
    func close() {
        let tokens = state.withLock { state -> [WatchToken]? in
            if state.isClosed { return nil }
            state.isClosed = true
            state.output = []
            state.sentCount = 0
            return [state.watchedInput, state.watchedOutput].compactMap { $0 }
        }
        guard let tokens else { return }
        for token in tokens { context.unwatch(token) }
        stream.end()
        whenClosed(self)
    }
}
