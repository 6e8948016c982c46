/// What waits to be sent on a stream, in order: short pieces, which are copied or made in place, whole buffers, and bytes of files, which the
/// kernel sends without a copy through this process.
///
/// Bytes of a file are kept as positions that mean something to the owner of the queue, and are turned into a descriptor and an offset only
/// when they are sent: which file holds them may change while a slow peer makes them wait.
///
/// Used by one isolation at a time (the connection's).
package struct SendQueue: ~Copyable {
    /// Something that is sent from where it lies, after `bytesBefore` of the in-place bytes.
    private struct Attachment {
        var bytesBefore: Int
        var source: Source
    }

    private enum Source {
        /// Bytes of a buffer that the queue keeps alive; start and count move as it is sent.
        case buffer(IOBuffer, start: Int, byteCount: Int)
        /// Memory of a request that waits until it is sent.
        case memory(IOVector)
        /// Bytes that lie elsewhere, at a position of the owner's.
        case external(position: Int, byteCount: Int)
    }

    private var memory: IOBuffer
    private let initialCapacity: Int
    private var start = 0
    private var end = 0
    private var attachments: [Attachment] = []
    private var firstAttachment = 0
    /// In-place bytes behind the last attachment.
    private var trailing = 0
    private var attachedByteCount = 0
    /// Everything that was ever sent, in bytes.
    package private(set) var sentByteCount = 0

    package init(capacity: Int) {
        initialCapacity = capacity
        memory = IOBuffer(byteCount: capacity)
    }

    /// Everything that is not sent yet.
    package var byteCount: Int { end &- start &+ attachedByteCount }
    package var isEmpty: Bool { end == start && attachedByteCount == 0 }

    // MARK: Filling

    /// Makes room for a piece at the end, to be filled in place through `reserved` and `withReserved`, and added by `commit`.
    /// Nothing of it is sent without a commit.
    package mutating func reserve(_ byteCount: Int) {
        if memory.byteCount &- end < byteCount { makeRoom(byteCount) }
    }

    /// A view of the reserved piece, for a read that is over before anything else is done with the queue.
    /// - Precondition: it lies within what was reserved last.
    package func reserved(at offset: Int, byteCount: Int) -> IOVector { memory.vector(at: end &+ offset, byteCount: byteCount) }

    /// The first `byteCount` reserved bytes.
    package func withReserved(_ byteCount: Int, _ body: (inout MutableRawSpan) -> Void) {
        memory.withMutableBytes(at: end, byteCount: byteCount) { bytes in body(&bytes) }
    }

    /// Adds the first `byteCount` reserved bytes to what is to be sent.
    package mutating func commit(_ byteCount: Int) {
        precondition(byteCount <= memory.byteCount - end, "only what was reserved")
        end &+= byteCount
        trailing &+= byteCount
    }

    /// Adds a short piece.
    package mutating func append(_ byteCount: Int, _ fill: (inout MutableRawSpan) -> Void) {
        reserve(byteCount)
        withReserved(byteCount, fill)
        commit(byteCount)
    }

    /// Adds a copy of bytes.
    package mutating func append(_ bytes: RawSpan) {
        reserve(bytes.byteCount)
        reserved(at: 0, byteCount: bytes.byteCount).copyIn(bytes, at: 0)
        commit(bytes.byteCount)
    }

    package mutating func append(_ bytes: [UInt8]) {
        // SAFETY: the bytes are copied before the call returns.
        unsafe bytes.withUnsafeBytes { unsafe append($0.bytes) }
    }

    /// Adds the first `byteCount` bytes of a buffer, which nobody writes to any more. It is kept alive until they are sent.
    package mutating func append(_ buffer: IOBuffer, byteCount: Int) {
        if byteCount > 0 { attach(.buffer(buffer, start: 0, byteCount: byteCount), byteCount) }
    }

    /// Adds the bytes of a request, without a copy. The request must not end before they are sent (`sentByteCount` tells) or the queue is dropped.
    package mutating func append(memoryOf request: IOVector) {
        if request.byteCount > 0 { attach(.memory(request), request.byteCount) }
    }

    /// Adds bytes that lie elsewhere; `send` asks where.
    package mutating func append(externalAt position: Int, byteCount: Int) {
        if byteCount > 0 { attach(.external(position: position, byteCount: byteCount), byteCount) }
    }

    /// Puts the bytes that `send` could not get in place of the external ones at the front of the queue.
    /// - Precondition: `send` has answered `.missing`, and nothing was sent since.
    package mutating func supply(_ buffer: IOBuffer) {
        guard firstAttachment < attachments.count, case .external(_, let byteCount) = attachments[firstAttachment].source else {
            preconditionFailure("bytes are supplied after they were asked for")
        }
        precondition(buffer.byteCount == byteCount, "as many bytes as were announced")
        attachments[firstAttachment].source = .buffer(buffer, start: 0, byteCount: byteCount)
    }

    private mutating func attach(_ source: Source, _ byteCount: Int) {
        attachments.append(Attachment(bytesBefore: trailing, source: source))
        trailing = 0
        attachedByteCount += byteCount
    }

    private mutating func makeRoom(_ byteCount: Int) {
        let used = end - start
        // Moving is cheap while little is unsent; otherwise grow, so that a slow peer does not make us move the same bytes again and again.
        if used + byteCount <= memory.byteCount, used <= memory.byteCount / 4 {
            memory.withBytes { memory.vector.copyIn($0.extracting(start..<end), at: 0) }
        } else {
            let larger = IOBuffer(byteCount: max(memory.byteCount * 2, used + byteCount))
            memory.withBytes { larger.vector.copyIn($0.extracting(start..<end), at: 0) }
            memory = larger
        }
        (start, end) = (0, used)
    }

    // MARK: Sending

    package enum Outcome: Hashable, Sendable {
        case empty
        /// The socket takes no more at the moment.
        case wouldBlock
        /// The connection is broken; a positive errno.
        case failed(Int32)
        /// The next bytes lie elsewhere and no file can be named for them, or it could not be read: call `supply`, then send again.
        case missing(position: Int, byteCount: Int)
    }

    /// Sends until the queue is empty or the socket is full. Never waits.
    /// - Parameter locate: where external bytes lie now: descriptor and offset.
    package mutating func send(to socket: ConnectedSocket, locate: (_ position: Int, _ byteCount: Int) -> (descriptor: Int32, offset: Int)?) -> Outcome {
        while !isEmpty {
            let outcome: ConnectedSocket.Outcome
            if firstAttachment == attachments.count {
                outcome = socket.send(memory.vector(at: start, byteCount: end &- start))
                if case .bytes(let count) = outcome { sentInPlace(count, trailing: true) }
            } else {
                outcome = sendFirstAttachment(to: socket, locate)
            }
            switch outcome {
            case .bytes: continue
            case .wouldBlock: return .wouldBlock
            case .closed, .failed:
                // A file that became shorter or cannot be read is not the socket's fault: the slow way finds out.
                if case .external(let position, let byteCount)? = externalAtFront { return .missing(position: position, byteCount: byteCount) }
                if case .failed(let number) = outcome { return .failed(number) }
                return .failed(0)
            }
        }
        reset()
        return .empty
    }

    private var externalAtFront: Source? {
        guard firstAttachment < attachments.count, attachments[firstAttachment].bytesBefore == 0 else { return nil }
        let source = attachments[firstAttachment].source
        if case .external = source { return source }
        return nil
    }

    private mutating func sendFirstAttachment(
        to socket: ConnectedSocket, _ locate: (_ position: Int, _ byteCount: Int) -> (descriptor: Int32, offset: Int)?
    ) -> ConnectedSocket.Outcome {
        let attachment = attachments[firstAttachment]
        let before = memory.vector(at: start, byteCount: attachment.bytesBefore)
        switch attachment.source {
        case .external(let position, let byteCount):
            if attachment.bytesBefore > 0 {
                let outcome = socket.send(before, moreFollows: true)
                if case .bytes(let count) = outcome { sentInPlace(count, trailing: false) }
                return outcome
            }
            guard let (descriptor, start) = locate(position, byteCount) else { return .failed(0) }
            var offset = start
            let outcome = socket.sendFile(descriptor, at: &offset, byteCount: byteCount)
            if case .bytes(let count) = outcome {
                attachments[firstAttachment].source = .external(position: position + count, byteCount: byteCount - count)
                sentAttached(count, all: count == byteCount)
            }
            return outcome
        case .buffer(let buffer, let position, let byteCount):
            let (outcome, attached) = send(before, then: buffer.vector(at: position, byteCount: byteCount), to: socket)
            attachments[firstAttachment].source = .buffer(buffer, start: position + attached, byteCount: byteCount - attached)
            sentAttached(attached, all: attached == byteCount)
            return outcome
        case .memory(let vector):
            let (outcome, attached) = send(before, then: vector, to: socket)
            attachments[firstAttachment].source = .memory(vector.slice(at: attached, byteCount: vector.byteCount - attached))
            sentAttached(attached, all: attached == vector.byteCount)
            return outcome
        }
    }

    /// Sends in-place bytes and what follows them in one call. - Returns: what happened, and how many bytes of `body` went.
    private mutating func send(_ before: IOVector, then body: IOVector, to socket: ConnectedSocket) -> (ConnectedSocket.Outcome, attached: Int) {
        let outcome: ConnectedSocket.Outcome
        if before.byteCount == 0 {
            outcome = socket.send(body)
        } else {
            let both = VectorList([before, body])
            outcome = socket.send(both.vector)
            withExtendedLifetime(both) {}
        }
        guard case .bytes(let count) = outcome else { return (outcome, 0) }
        let inPlace = min(count, before.byteCount)
        sentInPlace(inPlace, trailing: false)
        return (outcome, count - inPlace)
    }

    private mutating func sentInPlace(_ count: Int, trailing isTrailing: Bool) {
        start &+= count
        sentByteCount &+= count
        if isTrailing { trailing &-= count } else { attachments[firstAttachment].bytesBefore -= count }
    }

    private mutating func sentAttached(_ count: Int, all: Bool) {
        attachedByteCount -= count
        sentByteCount &+= count
        guard all else { return }
        firstAttachment += 1
        if firstAttachment == attachments.count {
            attachments.removeAll(keepingCapacity: true)
            firstAttachment = 0
        } else if firstAttachment >= 64 {
            // Lets go of what has been sent although more keeps coming.
            attachments.removeFirst(firstAttachment)
            firstAttachment = 0
        }
    }

    private mutating func reset() {
        (start, end, trailing) = (0, 0, 0)
        // What a burst has grown is given back once it is over.
        if memory.byteCount > initialCapacity * 4 { memory = IOBuffer(byteCount: initialCapacity) }
    }
}
