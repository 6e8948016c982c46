import BlockGraph
import IOCore
import NBDProtocol
import StrataBase

// Four ways to answer a read: at once into the send queue; large ones from a file by the kernel, in chunks, or where there are zeroes by saying so; and by a
// worker.

extension ServerConnection {
    func read(_ frame: RequestFrame) {
        let range = frame.range
        if range.byteCount >= ConnectionLimits.largeRead { return readLarge(frame, range) }
        // A data chunk holds at least one byte.
        if range.isEmpty, format != .simple {
            Trace.nbdRequestEnd(client: self, cookie: frame.cookie, error: 0)
            return replyEmpty(to: frame.reference)
        }
        if !appendAtOnce(range, of: frame, isLast: true) { submitRead(frame) }
    }

    /// Reads straight into the send queue. False when the backend cannot answer at once; nothing was added then.
    private func appendAtOnce(_ range: GuestRange, of frame: RequestFrame, isLast: Bool) -> Bool {
        let header = format.dataHeaderSize
        sendQueue.reserve(header + range.byteCount)
        guard backend.tryRead(sendQueue.reserved(at: header, byteCount: range.byteCount), at: range.start) else { return false }
        sendQueue.withReserved(header) { encodeDataHeader(range, frame.reference, isLast: isLast, into: &$0) }
        sendQueue.commit(header + range.byteCount)
        if isLast { Trace.nbdRequestEnd(client: self, cookie: frame.cookie, error: 0) }
        return true
    }

    private func encodeDataHeader(_ range: GuestRange, _ reference: ReplyFormat.Reference, isLast: Bool, into bytes: inout MutableRawSpan) {
        format.encodeDataHeader(flags: isLast ? .done : [], reference, offset: UInt64(range.start.rawValue), byteCount: range.byteCount, into: &bytes)
    }

    private func readLarge(_ frame: RequestFrame, _ range: GuestRange) {
        prepareForLargeReads()
        guard format != .simple, !frame.flags.contains(.dontFragment) else {
            if appendFromFiles(range, of: frame, isLast: true) { return send() }
            if !appendAtOnce(range, of: frame, isLast: true) { submitRead(frame) }
            return
        }
        var rest = range
        while !rest.isEmpty, phase != .closed {
            let (isZero, byteCount) = runAtOnce(rest)
            let run = GuestRange(rest.start, byteCount: byteCount)
            let isLast = run.byteCount == rest.byteCount
            if isZero {
                appendHole(run, of: frame, isLast: isLast)
            } else if !appendFromFiles(run, of: frame, isLast: isLast), let stop = appendInChunks(run, of: frame, isLast: isLast) {
                // A worker takes over where the fast path stopped; its chunk is the last one.
                var remainder = frame
                remainder.offset = UInt64(stop.rawValue)
                remainder.byteCount = UInt64(rest.end.rawValue - stop.rawValue)
                return submitRead(remainder, frame.reference)
            }
            rest = GuestRange(run.end, byteCount: rest.byteCount - run.byteCount)
            send()
        }
    }

    /// Copies a range into the send queue, and sends what has been copied meanwhile.
    /// - Returns: where the data cannot be had at once; nil when all of it was, or when the connection has ended.
    private func appendInChunks(_ range: GuestRange, of frame: RequestFrame, isLast: Bool) -> GuestOffset? {
        var rest = range
        while !rest.isEmpty, phase != .closed {
            let piece = GuestRange(rest.start, byteCount: min(rest.byteCount, ConnectionLimits.readChunk))
            guard appendAtOnce(piece, of: frame, isLast: isLast && piece.byteCount == rest.byteCount) else { return rest.start }
            rest = GuestRange(piece.end, byteCount: rest.byteCount - piece.byteCount)
            send()
        }
        return nil
    }

    /// The beginning of a range that is zeroes or is not, as far as that is known without looking at data. What is not known counts as data.
    private func runAtOnce(_ range: GuestRange) -> (isZero: Bool, byteCount: Int) {
        var byteCount = 0
        while byteCount < range.byteCount {
            let rest = GuestRange(range.start + byteCount, byteCount: range.byteCount - byteCount)
            guard let status = backend.tryBlockStatus(of: rest, precise: false) else { break }
            let run = min(status.byteCount, rest.byteCount)
            if status.flags.contains(.zero), run >= ConnectionLimits.leastHole { return byteCount == 0 ? (true, run) : (false, byteCount) }
            byteCount += run
        }
        return (false, range.byteCount)
    }

    /// Tells of zeroes instead of sending them.
    private func appendHole(_ range: GuestRange, of frame: RequestFrame, isLast: Bool) {
        let start = TickClock.now
        sendQueue.append(format.headerSize + StructuredReply.holePayloadByteCount) {
            format.encodeHole(flags: isLast ? .done : [], frame.reference, offset: UInt64(range.start.rawValue), byteCount: range.byteCount, into: &$0)
        }
        backend.accounting.finished(.read, byteCount: range.byteCount, since: start)
        if isLast { Trace.nbdRequestEnd(client: self, cookie: frame.cookie, error: 0) }
    }

    /// Has the kernel send the range from the files that hold it. False when some part of it is not held so, or has to pass through this process
    /// because it is encrypted on the way; nothing was added then.
    private func appendFromFiles(_ range: GuestRange, of frame: RequestFrame, isLast: Bool) -> Bool {
        if socket.isEncrypted { return false }
        let start = TickClock.now
        let isOnePiece = backend.hostFileRange(of: range) != nil
        if !isOnePiece {
            // A format keeps clusters in any order: look at each.
            var rest = range
            while let piece = rest.takeFilePiece() { if backend.hostFileRange(of: piece) == nil { return false } }
        }
        sendQueue.append(format.dataHeaderSize) { encodeDataHeader(range, frame.reference, isLast: isLast, into: &$0) }
        if isLast { Trace.nbdRequestEnd(client: self, cookie: frame.cookie, error: 0) }
        if isOnePiece {
            sendQueue.append(externalAt: range.start.rawValue, byteCount: range.byteCount)
        } else {
            var rest = range
            while let piece = rest.takeFilePiece() { sendQueue.append(externalAt: piece.start.rawValue, byteCount: piece.byteCount) }
        }
        backend.accounting.finished(.read, byteCount: range.byteCount, since: start)
        return true
    }

    /// - Parameter reference: that of the request that `frame` is the rest of, if it is not the whole.
    private func submitRead(_ frame: RequestFrame, _ reference: ReplyFormat.Reference? = nil) {
        var request = QueuedRequest(frame, heldByteCount: frame.range.byteCount)
        if let reference { request.reference = reference }
        submit(request)
    }

    func readSlowly(_ request: QueuedRequest) async throws(BlockError) {
        let range = request.frame.range
        let buffer = IOBuffer(byteCount: range.byteCount)
        defer { withExtendedLifetime(buffer) {} }
        try await backend.read(buffer.vector, at: range.start, flags: [])
        Trace.nbdRequestEnd(client: self, cookie: request.reference.cookie, error: 0)
        guard phase != .closed else { return }
        sendQueue.append(format.dataHeaderSize) { encodeDataHeader(range, request.reference, isLast: true, into: &$0) }
        if range.byteCount <= ConnectionLimits.copiedReply {
            buffer.withBytes { sendQueue.append($0) }
        } else {
            sendQueue.append(buffer, byteCount: range.byteCount)
        }
    }
}

extension GuestRange {
    /// Takes bytes from the front up to the next multiple of a usual cluster's size; nil when none are left.
    fileprivate mutating func takeFilePiece() -> GuestRange? {
        if isEmpty { return nil }
        let unit = ConnectionLimits.filePiece
        let piece = GuestRange(start, byteCount: min(byteCount, unit - start.rawValue % unit))
        self = GuestRange(piece.end, byteCount: byteCount - piece.byteCount)
        return piece
    }
}
