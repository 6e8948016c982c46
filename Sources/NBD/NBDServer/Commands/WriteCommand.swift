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
            // What has to be on stable storage goes there once.
            incoming = .payload(LongWrite(frame: frame, buffer: IOBuffer(byteCount: count), isWrittenAhead: writeFlags(frame).isEmpty))
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

    /// Writes whole pieces of what has arrived while the client sends the rest: it would have to wait otherwise, because a socket holds little, and
    /// the bytes are still in the processor's cache. As on a disk that loses power, the beginning of a write that never ends may have been written.
    func writeAhead(_ write: inout LongWrite) {
        let start = write.frame.range.start.rawValue
        let end = (start + write.received) / ConnectionLimits.writePiece * ConnectionLimits.writePiece - start
        guard write.isWrittenAhead, end - write.written >= ConnectionLimits.writePiece else { return }
        let piece = write.buffer.vector(at: write.written, byteCount: end - write.written)
        // What cannot be written at once is written as one request, with what follows.
        write.isWrittenAhead = backend.tryWritePiece(piece, at: GuestOffset(start + write.written))
        if write.isWrittenAhead { write.written = end }
    }

    /// Writes what is left of a payload that has arrived.
    func finish(_ write: LongWrite) {
        let (frame, buffer) = (write.frame, write.buffer)
        defer { withExtendedLifetime(buffer) {} }
        let rest = buffer.vector(at: write.written, byteCount: buffer.byteCount - write.written)
        if backend.tryWritePiece(rest, at: GuestOffset(frame.range.start.rawValue + write.written), flags: writeFlags(frame), endOf: buffer.byteCount) {
            return replyDone(to: frame)
        }
        var request = QueuedRequest(frame, payload: buffer, heldByteCount: buffer.byteCount)
        request.payloadStart = write.written
        // The rest is counted when it is done.
        if write.written > 0 { backend.accounting.finished(.write, byteCount: write.written, since: TickClock.now) }
        submit(request)
    }

    /// The flags that every changing request shares.
    func writeFlags(_ frame: RequestFrame) -> RequestFlags {
        writesThrough || frame.flags.contains(.forceUnitAccess) ? .forceUnitAccess : []
    }

    func writeSlowly(_ request: QueuedRequest) async throws(BlockError) {
        guard let payload = request.payload else { throw BlockError(.invalidArgument, "a write without data") }
        defer { withExtendedLifetime(payload) {} }
        let (range, done) = (request.frame.range, request.payloadStart)
        try await backend.write(
            payload.vector(at: done, byteCount: range.byteCount - done), at: GuestOffset(range.start.rawValue + done), flags: writeFlags(request.frame))
        replyDone(to: request.frame)
    }
}
