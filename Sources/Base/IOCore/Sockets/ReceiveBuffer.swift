/// What has arrived on a stream and was not used yet: one buffer, filled at the back and emptied from the front.
///
/// A request lies in one piece in it, so that it is parsed where it lies and its payload can be written from where it lies.
/// Used by one isolation at a time (the connection's).
package struct ReceiveBuffer: ~Copyable {
    private let memory: IOBuffer
    private var start = 0
    private var end = 0

    /// - Parameter byteCount: room for at least the longest piece that must lie in one run, plus what is received at a time.
    package init(byteCount: Int) { memory = IOBuffer(byteCount: byteCount) }

    /// Bytes that wait to be used.
    package var unreadByteCount: Int { end &- start }

    package var capacity: Int { memory.byteCount }

    /// The unread bytes.
    package func withUnread<R, E>(_ body: (RawSpan) throws(E) -> R) throws(E) -> R {
        try memory.withBytes { bytes throws(E) in try body(bytes.extracting(start..<end)) }
    }

    /// A view of unread bytes for a request that ends before anything else is done with this buffer.
    /// - Precondition: they are there.
    package func unread(at offset: Int, byteCount: Int) -> IOVector {
        precondition(offset >= 0 && byteCount >= 0 && offset <= unreadByteCount && byteCount <= unreadByteCount - offset, "only what has arrived")
        return memory.vector(at: start + offset, byteCount: byteCount)
    }

    /// Drops bytes from the front. - Precondition: they are there.
    package mutating func consume(_ byteCount: Int) {
        precondition(byteCount >= 0 && byteCount <= unreadByteCount, "only what has arrived can be used")
        start += byteCount
        if start == end { (start, end) = (0, 0) }
    }

    /// Takes what has arrived on `socket`, at most `limit` bytes. Never waits.
    /// - Precondition: the buffer is not full of unread bytes: whoever parses keeps pieces shorter than the buffer.
    package mutating func receive(from socket: ConnectedSocket, limit: Int) -> ConnectedSocket.Outcome {
        if start > 0, capacity - end < limit { moveToFront() }
        let room = min(limit, capacity - end)
        precondition(room > 0, "a full receive buffer is parsed before more is received")
        let outcome = socket.receive(into: memory.vector(at: end, byteCount: room))
        if case .bytes(let count) = outcome { end += count }
        return outcome
    }

    /// Puts bytes in that were received elsewhere. - Precondition: they fit behind what is unread.
    package mutating func append(_ bytes: [UInt8]) {
        if capacity - end < bytes.count { moveToFront() }
        // SAFETY: the bytes are copied before the call returns; `copyIn` checks the range.
        unsafe bytes.withUnsafeBytes { unsafe memory.vector.copyIn($0.bytes, at: end) }
        end += bytes.count
    }

    /// Takes everything out.
    package mutating func takeUnread() -> [UInt8] {
        var taken = [UInt8](repeating: 0, count: unreadByteCount)
        // SAFETY: the array's own memory, for the length of the call.
        unsafe taken.withUnsafeMutableBytes { target in
            var bytes = unsafe target.mutableBytes
            memory.vector.copyOut(at: start, into: &bytes)
        }
        (start, end) = (0, 0)
        return taken
    }

    private mutating func moveToFront() {
        let count = unreadByteCount
        // `copyIn` is safe for ranges that overlap.
        memory.withBytes { memory.vector.copyIn($0.extracting(start..<end), at: 0) }
        (start, end) = (0, count)
    }
}
