import IOCore
import NBDProtocol
import StrataBase

// From bytes to requests.

extension ServerConnection {
    /// Acts on every whole request that has arrived, as far as the client's unfinished ones allow.
    /// - Returns: false when the client broke the protocol in a way that leaves no way on.
    func parse() -> Bool {
        while phase == .running {
            switch incoming {
            case .skipping(let rest):
                let dropped = min(rest, receiveBuffer.unreadByteCount)
                receiveBuffer.consume(dropped)
                if dropped < rest {
                    incoming = .skipping(rest - dropped)
                    return true
                }
                incoming = .header
            case .payload(let frame, let buffer, let received):
                guard let complete = continuePayload(frame, buffer, received) else { return true }
                incoming = .header
                finishLongWrite(frame, complete)
            case .header:
                if sendQueue.byteCount > ConnectionLimits.unsent { send() }
                guard phase == .running, receiveBuffer.unreadByteCount >= RequestFrame.encodedSize, mayAccept else { return true }
                guard let frame = receiveBuffer.withUnread({ RequestFrame(decoding: $0) }) else { return false }
                guard act(on: frame) else { return true }
            }
        }
        return true
    }

    /// - Returns: false when more bytes must come before the request can be acted on; nothing was consumed then.
    private func act(on frame: RequestFrame) -> Bool {
        if let refusal = rules.refusal(of: frame) {
            receiveBuffer.consume(RequestFrame.encodedSize)
            requestCount &+= 1
            // The payload comes whether we want it or not. The length has 32 bits: dropping it is bounded.
            if frame.payloadByteCount > 0 { incoming = .skipping(Int(frame.payloadByteCount)) }
            replyError(to: frame, refusal.code, refusal.text)
            return true
        }
        switch frame.command {
        case .read:
            receiveBuffer.consume(RequestFrame.encodedSize)
            read(frame)
        case .write:
            guard write(frame) else { return false }
        case .disconnect:
            receiveBuffer.consume(RequestFrame.encodedSize)
            phase = .draining
        case .blockStatus:
            receiveBuffer.consume(RequestFrame.encodedSize)
            blockStatus(frame)
        default:
            receiveBuffer.consume(RequestFrame.encodedSize)
            submit(QueuedRequest(frame: frame, payload: nil, heldByteCount: 0))
        }
        requestCount &+= 1
        return true
    }

    /// Moves what has already arrived of a long payload to its place.
    /// - Returns: the buffer when it is full.
    private func continuePayload(_ frame: RequestFrame, _ buffer: IOBuffer, _ received: Int) -> IOBuffer? {
        let arrived = min(receiveBuffer.unreadByteCount, buffer.byteCount - received)
        if arrived > 0 {
            buffer.vector(at: received, byteCount: arrived).copy(from: receiveBuffer.unread(at: 0, byteCount: arrived))
            receiveBuffer.consume(arrived)
        }
        if received + arrived == buffer.byteCount { return buffer }
        incoming = .payload(frame, buffer, received: received + arrived)
        return nil
    }
}

extension RequestFrame {
    /// The bytes that the request is about. Only for requests that `RequestRules` accepted: offset and length fit then.
    var range: GuestRange { GuestRange(GuestOffset(Int(truncatingIfNeeded: offset)), byteCount: Int(truncatingIfNeeded: byteCount)) }
}
