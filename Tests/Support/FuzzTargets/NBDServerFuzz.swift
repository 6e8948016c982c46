import NBDProtocol
import StrataBase

/// What an NBD client may send, from its first byte on: handshake, options, requests, payloads.
///
/// The first byte says whether there is TLS and in what pieces bytes arrive; the rest is what the client sends.
package enum NBDServerFuzz: FuzzTarget {
    package static let name = "nbd-server"

    private struct Exports: ExportDirectory {
        let disk = ExportDescription(
            name: "disk", description: "the first", byteCount: 1 << 40, flags: [.sendFlush, .sendFUA, .sendTrim, .sendWriteZeroes, .sendFastZero, .sendCache],
            metaContexts: [.baseAllocation, MetaContext(.allocationDepth, identifier: 1), MetaContext(.dirtyBitmap("b"), identifier: 2)])
        let other = ExportDescription(name: "other", byteCount: 512, flags: .readOnly, blockSizes: NBDBlockSizes(minimum: 512))

        func export(named name: String) -> ExportDescription? { name == "disk" || name.isEmpty ? disk : name == "other" ? other : nil }
        var listing: [(name: String, description: String?)] { [(disk.name, disk.description), (other.name, other.description)] }
    }

    package static func run(_ input: [UInt8]) {
        guard let first = input.first else { return }
        var stream = Stream(input.dropFirst(), piece: first >> 2)
        var handshake = ServerHandshake(encryption: [.none, .required, .active, .none][Int(first & 3)])
        var output = HandshakeOutput()
        handshake.greet(&output)
        while true {
            let (consumed, verdict) = handshake.consume(stream.arrived, exports: Exports(), &output)
            precondition(consumed <= stream.count, "more was consumed than had come")
            precondition(output.take().count < 1 << 20, "an answer of a megabyte")
            stream.drop(consumed)
            switch verdict {
            case .needsMore:
                if consumed > 0 { continue }
                precondition(stream.count < 64 + NBDLimit.optionPayloadByteCount, "an option that fits is not taken")
                guard stream.receive() else { return }
            case .startTLS:
                // Nothing that came in clear counts.
                stream.forgetArrived()
                handshake.tlsStarted()
            case .transmission(let session): return requests(session, &stream)
            case .close: return
            }
        }
    }

    private static func requests(_ session: NBDSession, _ stream: inout Stream) {
        let rules = RequestRules(session)
        let format = session.replyStyle
        let isExtended = format == .extended
        let headerSize = isExtended ? RequestFrame.extendedSize : RequestFrame.encodedSize
        while true {
            while stream.count < headerSize { guard stream.receive() else { return } }
            guard var frame = RequestFrame(decoding: stream.arrived, isExtended: isExtended) else { return }
            stream.drop(headerSize)
            var contexts = session.metaContexts
            var refusal = rules.refusal(of: frame)
            var payload = frame.payloadByteCount(isExtended: isExtended)
            if isExtended, frame.command == .blockStatus, frame.flags.contains(.payloadLength) {
                let most = BlockStatusFilter.encodedSize(identifierCount: contexts.count)
                if frame.byteCount >= 8, frame.byteCount <= most {
                    let size = Int(frame.byteCount)
                    while stream.count < size { guard stream.receive() else { return } }
                    payload = 0
                    if let filter = try? BlockStatusFilter(decoding: stream.arrived.extracting(0..<size)) {
                        contexts = contexts.filter { filter.identifiers.contains($0.identifier) }
                        frame.flags.remove(.payloadLength)
                        frame.byteCount = filter.byteCount
                        refusal = rules.refusal(of: frame)
                    }
                    stream.drop(size)
                }
            }
            if frame.command == .disconnect { return }
            if let refusal {
                encode(format.errorSize(refusal.text)) { format.encodeError(refusal.code, refusal.text, frame.reference, into: &$0) }
            } else {
                if frame.command != .flush {
                    precondition(frame.offset <= rules.exportByteCount && frame.byteCount <= rules.exportByteCount - frame.offset, "a request beyond the end was let through")
                }
                reply(frame, contexts, format)
            }
            // The payload is dropped, however much of it comes.
            while payload > 0 {
                let step = min(payload, UInt64(stream.count))
                stream.drop(Int(step))
                payload -= step
                if payload > 0, !stream.receive() { return }
            }
        }
    }

    private static func reply(_ frame: RequestFrame, _ contexts: [MetaContext], _ format: ReplyFormat) {
        switch frame.command {
        case .read:
            encode(format.dataHeaderSize) {
                format.encodeDataHeader(flags: .done, frame.reference, offset: frame.offset, byteCount: Int(frame.byteCount), into: &$0)
            }
        case .blockStatus where format != .simple:
            for context in contexts {
                var extents = BlockStatusExtents(onlyOne: frame.flags.contains(.requestOne), isExtended: format == .extended)
                let half = Int(frame.byteCount / 2)
                _ = extents.append(byteCount: Int(frame.byteCount) - half, state: 0) && half > 0 && extents.append(byteCount: half, state: 3)
                encode(format.headerSize + extents.payloadByteCount(format)) { bytes in
                    format.encodeHeader(
                        format == .extended ? .blockStatusExtended : .blockStatus, flags: .done, frame.reference, payloadByteCount: extents.payloadByteCount(format),
                        into: &bytes)
                    extents.encodePayload(context, format, into: &bytes, at: format.headerSize)
                }
            }
        default:
            encode(format.headerSize) { bytes in
                if format == .simple {
                    SimpleReply.encode(cookie: frame.cookie, into: &bytes)
                } else {
                    format.encodeHeader(.none, flags: .done, frame.reference, payloadByteCount: 0, into: &bytes)
                }
            }
        }
    }

    private static func encode(_ count: Int, _ body: (inout MutableRawSpan) -> Void) {
        var bytes = [UInt8](repeating: 0, count: count)
        var span = bytes.mutableSpan
        var raw = span.mutableBytes
        body(&raw)
    }

    // MARK: Seeds

    private static func option(_ number: UInt32, _ payload: [UInt8] = []) -> [UInt8] {
        NBDMagic.option.bigEndianBytes + number.bigEndianBytes + UInt32(payload.count).bigEndianBytes + payload
    }

    private static func string(_ text: String) -> [UInt8] { UInt32(text.utf8.count).bigEndianBytes + Array(text.utf8) }

    private static func request(_ command: UInt16, flags: UInt16 = 0, offset: UInt64 = 0, count: UInt64, extended: Bool, _ payload: [UInt8] = []) -> [UInt8] {
        var bytes = (extended ? NBDMagic.extendedRequest : NBDMagic.request).bigEndianBytes
        bytes += flags.bigEndianBytes + command.bigEndianBytes
        bytes += UInt64(7).bigEndianBytes + offset.bigEndianBytes
        bytes += extended ? count.bigEndianBytes : UInt32(count).bigEndianBytes
        return bytes + payload
    }

    package static func seeds() -> [[UInt8]] {
        let flags = UInt32(3).bigEndianBytes
        let go = option(7, string("disk") + [0, 2, 0, 3, 0, 1])
        func all(_ extended: Bool) -> [UInt8] {
            let payload = [UInt8](repeating: 5, count: 20)
            var bytes = request(0, count: 4096, extended: extended) + request(1, flags: extended ? 0x20 : 1, offset: 512, count: 20, extended: extended, payload)
            for command: UInt16 in 3...8 { bytes += request(command, offset: 1024, count: 512, extended: extended) }
            if extended { bytes += request(7, flags: 0x20, count: 12, extended: true, UInt64(4096).bigEndianBytes + UInt32(1).bigEndianBytes) }
            return bytes + request(2, count: 0, extended: extended)
        }
        let contexts = option(10, string("disk") + UInt32(2).bigEndianBytes + string("base:allocation") + string("qemu:dirty-bitmap:b"))
        let queries = option(9, string("disk") + UInt32(1).bigEndianBytes + string("qemu:"))
        let parts: [(UInt8, [[UInt8]])] = [
            (0, [flags, option(1, Array("disk".utf8)), all(false)]), (252, [flags, option(8), contexts, go, all(false)]), (4, [flags, option(11), contexts, go, all(true)]),
            (1, [flags, option(3), option(5), option(3), go, all(false)]), (2, [flags, option(6, string("other") + [0, 0]), option(2)]),
            (0, [flags, option(3), queries, option(99, [1, 2, 3]), option(7, string("nope") + [0, 0])]),
        ]
        return parts.map { [$0.0] + $0.1.flatMap(\.self) }
    }

    package static var dictionary: [[UInt8]] {
        var words = [NBDMagic.option.bigEndianBytes, NBDMagic.request.bigEndianBytes, NBDMagic.extendedRequest.bigEndianBytes]
        for number: UInt32 in 1...11 { words.append(number.bigEndianBytes) }
        for text in ["disk", "other", "base:allocation", "qemu:", "qemu:dirty-bitmap:b", "qemu:allocation-depth"] { words.append(Array(text.utf8)) }
        return words + [[0xff, 0xff, 0xff, 0xff], [0, 0, 0x10, 1]]
    }
}
