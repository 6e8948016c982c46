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
            case .payload(var write):
                takeArrived(of: &write)
                guard write.received == write.buffer.byteCount else {
                    writeAhead(&write)
                    incoming = .payload(write)
                    return true
                }
                incoming = .header
                finish(write)
            case .header:
                if sendQueue.byteCount > sendBatch { send() }
                guard phase == .running, receiveBuffer.unreadByteCount >= requestHeaderSize, mayAccept else { return true }
                guard let frame = receiveBuffer.withUnread({ RequestFrame(decoding: $0, isExtended: format == .extended) }) else { return false }
                switch act(on: frame) {
                case .done: break
                case .needsMore: return true
                case .hopeless: return false
                }
            }
        }
        return true
    }

    private enum Action {
        case done
        /// More bytes must come before the request can be acted on; nothing was consumed.
        case needsMore
        /// A payload that has no end.
        case hopeless
    }

    private func act(on frame: RequestFrame) -> Action {
        if format == .extended, frame.command == .blockStatus, frame.flags.contains(.payloadLength) { return actOnFiltered(frame) }
        if let refusal = rules.refusal(of: frame) { return refuse(frame, refusal) }
        switch frame.command {
        case .read:
            receiveBuffer.consume(requestHeaderSize)
            traceBegin(frame)
            read(frame)
        case .write:
            guard write(frame) else { return .needsMore }
        case .disconnect:
            receiveBuffer.consume(requestHeaderSize)
            phase = .draining
        case .blockStatus:
            receiveBuffer.consume(requestHeaderSize)
            traceBegin(frame)
            blockStatus(frame, metaContexts)
        default:
            receiveBuffer.consume(requestHeaderSize)
            traceBegin(frame)
            submit(QueuedRequest(frame))
        }
        requestCount &+= 1
        return .done
    }

    private func refuse(_ frame: RequestFrame, _ refusal: Refusal) -> Action {
        receiveBuffer.consume(requestHeaderSize)
        requestCount &+= 1
        // The payload comes whether we want it or not. Dropping it is bounded, as it is where lengths have 32 bits.
        let payload = frame.payloadByteCount(isExtended: format == .extended)
        if payload > UInt32.max { return .hopeless }
        if payload > 0 { incoming = .skipping(Int(payload)) }
        traceBegin(frame)
        replyError(to: frame.reference, refusal.code, refusal.text)
        return .done
    }

    /// A block status request whose payload names the contexts that it is about.
    private func actOnFiltered(_ frame: RequestFrame) -> Action {
        let most = BlockStatusFilter.encodedSize(identifierCount: metaContexts.count)
        guard frame.byteCount >= 8, frame.byteCount <= most else { return refuse(frame, Refusal(.invalid, "a block status payload of \(frame.byteCount) bytes")) }
        let size = Int(frame.byteCount)
        guard receiveBuffer.unreadByteCount >= requestHeaderSize + size else { return .needsMore }
        let header = requestHeaderSize
        guard let filter = receiveBuffer.withUnread({ try? BlockStatusFilter(decoding: $0.extracting(header..<header + size)) }) else {
            return refuse(frame, Refusal(.invalid, "a block status payload of \(size) bytes"))
        }
        let chosen = metaContexts.filter { filter.identifiers.contains($0.identifier) }
        guard !chosen.isEmpty, chosen.count == filter.identifiers.count else { return refuse(frame, Refusal(.invalid, "block status for contexts that were not agreed on")) }
        var plain = frame
        plain.flags.remove(.payloadLength)
        plain.byteCount = filter.byteCount
        if let refusal = rules.refusal(of: plain) { return refuse(frame, refusal) }
        receiveBuffer.consume(requestHeaderSize + size)
        requestCount &+= 1
        traceBegin(plain)
        blockStatus(plain, chosen)
        return .done
    }

    /// A request is told of once, when its header is taken; that of a short write together with its payload.
    @inline(__always)
    func traceBegin(_ frame: RequestFrame) {
        Trace.nbdRequestBegin(
            client: self, cookie: frame.cookie, command: "\(frame.command)", offset: Int(truncatingIfNeeded: frame.offset),
            bytes: Int(truncatingIfNeeded: frame.byteCount))
    }

    /// Moves what has come along with other requests of a long payload to its place.
    private func takeArrived(of write: inout LongWrite) {
        let arrived = min(receiveBuffer.unreadByteCount, write.buffer.byteCount - write.received)
        guard arrived > 0 else { return }
        write.buffer.vector(at: write.received, byteCount: arrived).copy(from: receiveBuffer.unread(at: 0, byteCount: arrived))
        receiveBuffer.consume(arrived)
        write.received += arrived
    }
}

extension RequestFrame {
    /// The bytes that the request is about. Only for requests that `RequestRules` accepted: offset and length fit then.
    var range: GuestRange { GuestRange(GuestOffset(Int(truncatingIfNeeded: offset)), byteCount: Int(truncatingIfNeeded: byteCount)) }
}
