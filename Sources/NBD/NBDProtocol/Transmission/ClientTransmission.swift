package import StrataBase

/// The client's side of the transmission phase: a pure value that numbers requests and understands replies.
///
/// It keeps a record of every request under way, decides from it what a reply may look like, and refuses everything else: a reply to nothing, data
/// outside what was asked for or twice at the same place, an end with parts missing, chunks longer than their kind. After an error the connection
/// is lost; which of its bytes begin the next reply is not known any more.
///
/// Bytes of data are not looked at here: `.data` says how many follow and where they belong, and whoever drives this moves them and goes on
/// behind them. Source: NBD protocol document, "Transmission phase", "Structured reply types".
package struct ClientTransmission: Sendable {
    /// What the next bytes mean.
    @frozen
    package enum Event: Hashable, Sendable {
        /// Nothing can be said until at least this many bytes are there.
        case needsMore(Int)
        /// So many bytes follow that belong `at` bytes into the memory of the read in `slot`. Not part of what was consumed.
        case data(slot: Int, at: Int, byteCount: Int)
        /// A part of the read in `slot` is zeroes.
        case zeroes(slot: Int, at: Int, byteCount: Int)
        /// What the context says about the beginning of the range of the block status request in `slot`.
        case extent(slot: Int, byteCount: Int, flags: UInt32)
        /// The request in `slot` is over. The slot is free from now on.
        case finished(slot: Int, Failure?)
        /// Something was consumed that leads to nothing yet.
        case nothing
    }

    /// The server's answer that a request failed; the connection goes on.
    @frozen
    package struct Failure: Hashable, Sendable {
        /// Any number may arrive.
        package var errorNumber: UInt32
        /// The server's explanation; often empty.
        package var text: String
    }

    private struct Pending: Sendable {
        var cookie: UInt64
        var command: NBDCommand
        var offset: UInt64
        var byteCount: UInt64
        /// So much of a read has come from its start on.
        var received = 0
        /// What has come beyond that: disjoint, in order, none in the usual case.
        var pieces: [Range<Int>] = []
        var failure: Failure?
        var hasExtent = false
    }

    private let session: NBDClientSession
    private var slots: [Pending?] = []
    private var free: [Int] = []
    private var serial: UInt64 = 0
    /// A data chunk that ends its reply was announced: the reply is over when its bytes have been moved.
    private var endsAfterData: Int?

    /// The longest chunk, apart from data, that is looked at: an error with the longest text, or a few extents more than were asked for. In bytes.
    package static let chunkPayloadByteCount = 64 << 10
    /// Pieces without order that one read may come in before the server is taken for a hostile one.
    private static let pieceLimit = 8192

    package init(_ session: NBDClientSession) { self.session = session }

    package var requestsInFlight: Int { slots.count - free.count }

    /// Enters a request. The frame is to be sent as it is returned.
    package mutating func begin(_ command: NBDCommand, flags: NBDCommandFlags = [], offset: UInt64, byteCount: UInt64) -> (slot: Int, RequestFrame) {
        let slot: Int
        if let reused = free.popLast() { slot = reused } else {
            slot = slots.count
            slots.append(nil)
        }
        serial &+= 1
        let cookie = serial << 24 | UInt64(slot & 0xff_ffff)
        slots[slot] = Pending(cookie: cookie, command: command, offset: offset, byteCount: byteCount)
        return (slot, RequestFrame(flags: flags, command: command, cookie: cookie, offset: offset, byteCount: byteCount))
    }

    /// Takes as much of `bytes` as one event needs.
    /// - Parameter bytes: everything that has arrived and was not consumed yet. After `.data` the data must have been taken out.
    /// - Throws: what the server did wrong.
    package mutating func consume(_ bytes: RawSpan) throws(DecodingFailure) -> (consumed: Int, Event) {
        if let slot = endsAfterData {
            endsAfterData = nil
            return (0, try finish(slot))
        }
        guard bytes.byteCount >= SimpleReply.encodedSize else { return (0, .needsMore(SimpleReply.encodedSize)) }
        let magic: UInt32 = bytes.checkedBigEndian(at: 0)
        switch magic {
        case NBDMagic.simpleReply where session.replyStyle != .extended: return try simpleReply(bytes)
        case NBDMagic.structuredReply where session.replyStyle == .structured: return try chunk(bytes, headerSize: StructuredReply.headerSize)
        case NBDMagic.extendedReply where session.replyStyle == .extended: return try chunk(bytes, headerSize: StructuredReply.extendedHeaderSize)
        default: throw .invalid("a reply with the magic 0x\(String(magic, radix: 16))")
        }
    }

    // MARK: Simple replies

    private mutating func simpleReply(_ bytes: RawSpan) throws(DecodingFailure) -> (Int, Event) {
        let error: UInt32 = bytes.checkedBigEndian(at: 4)
        let slot = try slot(of: bytes.checkedBigEndian(at: 8))
        guard var pending = slots[slot] else { throw .invalid("a reply to nothing") }
        if error != 0 {
            pending.failure = Failure(errorNumber: error, text: "")
            slots[slot] = pending
            return (SimpleReply.encodedSize, try finish(slot))
        }
        if pending.command == .blockStatus { throw .invalid("a simple reply to a block status request") }
        guard pending.command == .read else { return (SimpleReply.encodedSize, try finish(slot)) }
        if session.replyStyle != .simple { throw .invalid("a simple reply to a read although structured replies were agreed on") }
        let count = Int(pending.byteCount)
        pending.received = count
        slots[slot] = pending
        endsAfterData = slot
        return (SimpleReply.encodedSize, count == 0 ? .nothing : .data(slot: slot, at: 0, byteCount: count))
    }

    private func slot(of cookie: UInt64) throws(DecodingFailure) -> Int {
        let slot = Int(cookie & 0xff_ffff)
        guard slot < slots.count, slots[slot]?.cookie == cookie else { throw .invalid("a reply to request \(cookie), which is not under way") }
        return slot
    }

    private mutating func finish(_ slot: Int) throws(DecodingFailure) -> Event {
        guard let pending = slots[slot] else { throw .invalid("a reply that ends twice") }
        if pending.failure == nil {
            if pending.command == .read, pending.byteCount > 0, pending.received != Int(pending.byteCount) {
                throw .invalid("a reply to a read of \(pending.byteCount) bytes with parts missing")
            }
            if pending.command == .blockStatus, !pending.hasExtent { throw .invalid("a reply to a block status request without an extent") }
        }
        slots[slot] = nil
        free.append(slot)
        return .finished(slot: slot, pending.failure)
    }

    // MARK: Chunks

    private struct Chunk {
        var flags: NBDReplyFlags
        var type: UInt16
        var slot: Int
        var pending: Pending
        var headerSize: Int
        var payloadSize: Int
    }

    private mutating func chunk(_ bytes: RawSpan, headerSize: Int) throws(DecodingFailure) -> (Int, Event) {
        guard bytes.byteCount >= headerSize else { return (0, .needsMore(headerSize)) }
        let slot = try slot(of: bytes.checkedBigEndian(at: 8))
        guard let pending = slots[slot] else { throw .invalid("a reply to nothing") }
        let size: UInt64
        if headerSize == StructuredReply.extendedHeaderSize {
            // The request's offset comes back too.
            let offset: UInt64 = bytes.checkedBigEndian(at: 16)
            guard offset == pending.offset else { throw .invalid("a reply with offset \(offset) to a request at \(pending.offset)") }
            size = bytes.checkedBigEndian(at: 24)
        } else {
            size = UInt64(bytes.checkedBigEndian(at: 16, as: UInt32.self))
        }
        let type: UInt16 = bytes.checkedBigEndian(at: 6)
        let limit = type == StructuredReply.ChunkType.offsetData.rawValue ? pending.byteCount + 8 : UInt64(Self.chunkPayloadByteCount)
        guard size <= limit else { throw .invalid("a chunk of type \(type) with a payload of \(size) bytes") }
        let chunk = Chunk(
            flags: NBDReplyFlags(rawValue: bytes.checkedBigEndian(at: 4)), type: type, slot: slot, pending: pending, headerSize: headerSize,
            payloadSize: Int(size))
        // Data is moved by the caller; of everything else the whole chunk has to be there.
        let needed = headerSize + (type == StructuredReply.ChunkType.offsetData.rawValue ? min(8, chunk.payloadSize) : chunk.payloadSize)
        guard bytes.byteCount >= needed else { return (0, .needsMore(needed)) }
        return try read(chunk, bytes.extracting(headerSize..<needed))
    }

    private mutating func read(_ chunk: Chunk, _ payload: RawSpan) throws(DecodingFailure) -> (Int, Event) {
        let whole = chunk.headerSize + chunk.payloadSize
        let isDone = chunk.flags.contains(.done)
        var pending = chunk.pending
        var event = Event.nothing
        switch StructuredReply.ChunkType(rawValue: chunk.type) {
        case .none? where chunk.type == 0:
            guard chunk.payloadSize == 0 else { throw .invalid("an empty chunk with \(chunk.payloadSize) bytes") }
            guard isDone else { throw .invalid("an empty chunk that does not end its reply") }
        case .offsetData:
            guard pending.command == .read else { throw .invalid("data in reply to a \(pending.command) request") }
            guard chunk.payloadSize > 8 else { throw .invalid("a data chunk of \(chunk.payloadSize) bytes") }
            let count = chunk.payloadSize - 8
            let place = try place(in: &pending, offset: try payload.bigEndian(at: 0), byteCount: count)
            slots[chunk.slot] = pending
            if isDone { endsAfterData = chunk.slot }
            return (chunk.headerSize + 8, .data(slot: chunk.slot, at: place, byteCount: count))
        case .offsetHole:
            guard pending.command == .read else { throw .invalid("a hole in reply to a \(pending.command) request") }
            guard chunk.payloadSize == 12 else { throw .invalid("a hole chunk of \(chunk.payloadSize) bytes") }
            let count: UInt32 = try payload.bigEndian(at: 8)
            guard count > 0 else { throw .invalid("a hole of no bytes") }
            let place = try place(in: &pending, offset: try payload.bigEndian(at: 0), byteCount: Int(count))
            event = .zeroes(slot: chunk.slot, at: place, byteCount: Int(count))
        case .blockStatus, .blockStatusExtended:
            event = try extent(chunk, payload, &pending)
        default:
            guard chunk.type >> 15 == 1 else { throw .invalid("a chunk of the unknown type \(chunk.type)") }
            let failure = try failure(chunk, payload)
            if pending.failure == nil { pending.failure = failure }
        }
        slots[chunk.slot] = pending
        if isDone {
            // The event of this chunk first, then the end.
            if event != .nothing {
                endsAfterData = chunk.slot
                return (whole, event)
            }
            return (whole, try finish(chunk.slot))
        }
        return (whole, event)
    }

    /// Enters a piece of a read. - Returns: where in the request's memory it belongs.
    private func place(in pending: inout Pending, offset: UInt64, byteCount: Int) throws(DecodingFailure) -> Int {
        guard offset >= pending.offset, offset - pending.offset <= pending.byteCount, UInt64(byteCount) <= pending.byteCount - (offset - pending.offset) else {
            throw .invalid("\(byteCount) bytes at \(offset) in reply to a read of \(pending.byteCount) bytes at \(pending.offset)")
        }
        let start = Int(offset - pending.offset)
        let end = start + byteCount
        let index = pending.pieces.firstIndex { $0.upperBound > start } ?? pending.pieces.count
        guard start >= pending.received, index == pending.pieces.count || pending.pieces[index].lowerBound >= end else {
            throw .invalid("the same bytes twice in reply to a read")
        }
        if start > pending.received {
            pending.pieces.insert(start..<end, at: index)
            guard pending.pieces.count <= Self.pieceLimit else { throw .invalid("a read answered in more than \(Self.pieceLimit) pieces without order") }
            return start
        }
        pending.received = end
        var joined = 0
        while joined < pending.pieces.count, pending.pieces[joined].lowerBound == pending.received {
            pending.received = pending.pieces[joined].upperBound
            joined += 1
        }
        if joined > 0 { pending.pieces.removeFirst(joined) }
        return start
    }

    private func extent(_ chunk: Chunk, _ payload: RawSpan, _ pending: inout Pending) throws(DecodingFailure) -> Event {
        guard pending.command == .blockStatus else { throw .invalid("block status in reply to a \(pending.command) request") }
        let isExtended = chunk.type == StructuredReply.ChunkType.blockStatusExtended.rawValue
        guard isExtended == (session.replyStyle == .extended) else { throw .invalid("block status of the wrong width") }
        let headSize = isExtended ? 8 : 4
        let extentSize = isExtended ? 16 : 8
        let extentBytes = chunk.payloadSize - headSize
        guard extentBytes >= extentSize, extentBytes.isMultiple(of: extentSize) else { throw .invalid("a block status chunk of \(chunk.payloadSize) bytes") }
        let context: UInt32 = try payload.bigEndian(at: 0)
        guard context == session.metaContextID else { throw .invalid("block status for context \(context), which was not agreed on") }
        if isExtended {
            let count: UInt32 = try payload.bigEndian(at: 4)
            guard Int(count) == extentBytes / extentSize else { throw .invalid("a block status chunk that says \(count) extents and has \(extentBytes / extentSize)") }
        }
        guard !pending.hasExtent else { throw .invalid("block status twice in one reply") }
        pending.hasExtent = true
        let length: UInt64
        let flags: UInt64
        if isExtended {
            length = try payload.bigEndian(at: 8)
            flags = try payload.bigEndian(at: 16)
        } else {
            length = UInt64(try payload.bigEndian(at: 4, as: UInt32.self))
            flags = UInt64(try payload.bigEndian(at: 8, as: UInt32.self))
        }
        guard length > 0 else { throw .invalid("an extent of no bytes") }
        // One extent was asked for; it may tell of more than the request's range.
        return .extent(slot: chunk.slot, byteCount: Int(min(length, pending.byteCount)), flags: UInt32(truncatingIfNeeded: flags))
    }

    private func failure(_ chunk: Chunk, _ payload: RawSpan) throws(DecodingFailure) -> Failure {
        let number: UInt32 = try payload.bigEndian(at: 0)
        guard number != 0 else { throw .invalid("an error chunk without an error") }
        let length = Int(try payload.bigEndian(at: 4, as: UInt16.self))
        guard length <= NBDLimit.stringByteCount, 6 + length <= chunk.payloadSize else { throw .invalid("an error chunk whose text has \(length) bytes in a payload of \(chunk.payloadSize)") }
        if chunk.type == StructuredReply.ChunkType.error.rawValue, 6 + length != chunk.payloadSize { throw .invalid("an error chunk of \(chunk.payloadSize) bytes with a text of \(length)") }
        if chunk.type == StructuredReply.ChunkType.errorOffset.rawValue, 14 + length != chunk.payloadSize { throw .invalid("an error chunk of \(chunk.payloadSize) bytes with a text of \(length)") }
        let text = (try? String(wireBytes: payload.extracting(6..<6 + length), what: "error text")) ?? ""
        return Failure(errorNumber: number, text: text)
    }
}
