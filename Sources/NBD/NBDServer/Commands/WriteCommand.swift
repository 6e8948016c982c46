import BlockGraph
import IOCore
import NBDProtocol
import StrataBase

extension ServerConnection {
    /// A write whose header lies at the front of the receive buffer.
    /// - Returns: false when its payload has not arrived yet; nothing was consumed then.
    func write(_ frame: RequestFrame) -> Bool {
        let count = frame.range.byteCount
        if count > ConnectionLimits.inPlacePayload {
            receiveBuffer.consume(requestHeaderSize)
            traceBegin(frame)
            incoming = .payload(frame, IOBuffer(byteCount: count), received: 0)
            return true
        }
        guard receiveBuffer.unreadByteCount >= requestHeaderSize + count else { return false }
        traceBegin(frame)
        let payload = receiveBuffer.unread(at: requestHeaderSize, byteCount: count)
        if backend.tryWrite(payload, at: frame.range.start, flags: writeFlags(frame)) {
            replyDone(to: frame)
        } else {
            // The receive buffer is needed for what comes next.
            let copy = IOBuffer(byteCount: count)
            copy.vector.copy(from: payload)
            submit(QueuedRequest(frame, payload: copy, heldByteCount: count))
        }
        receiveBuffer.consume(requestHeaderSize + count)
        return true
    }

    /// A write whose payload has arrived in a buffer of its own.
    func finishLongWrite(_ frame: RequestFrame, _ payload: IOBuffer) {
        if backend.tryWrite(payload.vector, at: frame.range.start, flags: writeFlags(frame)) {
            replyDone(to: frame)
        } else {
            submit(QueuedRequest(frame, payload: payload, heldByteCount: payload.byteCount))
        }
        withExtendedLifetime(payload) {}
    }

    /// The flags that every changing request shares.
    func writeFlags(_ frame: RequestFrame) -> RequestFlags {
        writesThrough || frame.flags.contains(.forceUnitAccess) ? .forceUnitAccess : []
    }

    func writeSlowly(_ request: QueuedRequest) async throws(BlockError) {
        guard let payload = request.payload else { throw BlockError(.invalidArgument, "a write without data") }
        defer { withExtendedLifetime(payload) {} }
        try await backend.write(payload.vector, at: request.frame.range.start, flags: writeFlags(request.frame))
        replyDone(to: request.frame)
    }
}
