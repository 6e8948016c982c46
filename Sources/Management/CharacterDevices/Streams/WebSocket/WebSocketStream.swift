import IOCore
import StrataBase
import Synchronization

/// The bytes of a conversation inside the frames of a websocket, whose opening is over.
final class WebSocketStream: ByteStream {
    /// Bytes of data in one frame at most.
    private static let frameLimit = 1 << 16

    private struct State {
        var frames = WebSocketFrames()
        /// What came behind the client's request; nil once it was received.
        var early: [UInt8]?
        /// Bytes of frames that are not sent yet, from `sentCount` on.
        var output: [UInt8] = []
        var sentCount = 0
        /// Bytes of the caller's that the last of these frames carries; they count as sent when it has gone.
        var carriedCount = 0
        /// A frame that answers the client's, to be sent behind the one that is under way.
        var answer: [UInt8] = []
        var isClosed = false
    }

    private let stream: any ByteStream
    private let state: Mutex<State>

    /// - Parameter early: what the client has sent behind its request already.
    init(_ stream: any ByteStream, early: [UInt8]) {
        self.stream = stream
        state = Mutex(State(early: early.isEmpty ? nil : early))
    }

    var inputDescriptor: Int32? { stream.inputDescriptor }
    var outputDescriptor: Int32? { stream.outputDescriptor }
    var hasPending: Bool { stream.hasPending || state.withLock { $0.early != nil } }

    func receive(atMost byteCount: Int) -> Received {
        if state.withLock({ $0.isClosed }) { return (.closed, [], []) }
        let early = state.withLock { state in
            defer { state.early = nil }
            return state.early
        }
        let received: Received = if let early { (.bytes(early.count), early, []) } else { stream.receive(atMost: byteCount) }
        guard case .bytes = received.outcome else { return received }
        let brought = state.withLock { state in
            let brought = state.frames.receive(received.bytes)
            // The newer answer takes the place of one that could not be sent yet.
            if !brought.answers.isEmpty { state.answer = brought.answers }
            state.isClosed = brought.isClosed
            return brought
        }
        _ = flush()
        if !brought.data.isEmpty { return (.bytes(brought.data.count), brought.data, received.descriptors) }
        return (brought.isClosed ? .closed : .wouldBlock, [], received.descriptors)
    }

    func send(_ bytes: [UInt8], from start: Int) -> ConnectedSocket.Outcome {
        if state.withLock({ $0.isClosed }) { return .closed }
        let outcome = flush()
        switch outcome {
        case .bytes: break
        case .wouldBlock, .closed, .failed: return outcome
        }
        let finished = state.withLock { state -> Int in
            defer { state.carriedCount = 0 }
            if state.carriedCount > 0 { return state.carriedCount }
            let end = min(bytes.count, start + Self.frameLimit)
            state.output = WebSocketFrames.frame(bytes[start..<end])
            state.sentCount = 0
            return 0
        }
        // The same bytes come again until we say that they are sent.
        if finished > 0 { return .bytes(finished) }
        let count = min(bytes.count - start, Self.frameLimit)
        let second = flush()
        guard case .bytes = second else {
            state.withLock { $0.carriedCount = count }
            return second
        }
        return .bytes(count)
    }

    /// - Returns: `.bytes` when nothing is left to send.
    private func flush() -> ConnectedSocket.Outcome {
        state.withLock { state in
            while true {
                while state.sentCount < state.output.count {
                    let outcome = stream.send(state.output, from: state.sentCount)
                    guard case .bytes(let count) = outcome else { return outcome }
                    state.sentCount += count
                }
                state.output = state.answer
                state.answer = []
                state.sentCount = 0
                if state.output.isEmpty { return .bytes(0) }
            }
        }
    }

    func begin() { stream.begin() }
    func end() { stream.end() }
}
