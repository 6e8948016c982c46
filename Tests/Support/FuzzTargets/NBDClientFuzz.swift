import NBDProtocol
import StrataBase

/// What an NBD server may send: its greeting, its answers to options, its replies.
///
/// The first byte says what the client wants, the second in what pieces bytes arrive; the rest is what the server sends.
package enum NBDClientFuzz: FuzzTarget {
    package static let name = "nbd-client"

    package static func run(_ input: [UInt8]) {
        guard input.count >= 2 else { return }
        var stream = Stream(input.dropFirst(2), piece: input[1])
        let style: NBDSession.ReplyStyle = [.simple, .structured, .extended, .extended][Int(input[0] & 3)]
        let usesTLS = input[0] & 4 != 0
        if input[0] & 8 != 0 {
            _ = negotiate(ListHandshake(usesTLS: usesTLS), ListHandshake.replyPayloadByteCount, &stream)
        } else if input[0] & 16 != 0 {
            // The handshake is over already.
            replies(NBDClientSession(byteCount: 1 << 40, flags: .hasFlags, blockSizes: nil, replyStyle: style, metaContextID: 3), &stream)
        } else {
            let handshake = ClientHandshake(.init(exportName: "disk", replyStyle: style, usesTLS: usesTLS))
            if let session = negotiate(handshake, ClientHandshake.replyPayloadByteCount, &stream) {
                precondition(session.byteCount >= 0, "a negative size")
                replies(session, &stream)
            }
        }
    }

    private static func negotiate<Negotiation: ClientNegotiation>(_ negotiation: Negotiation, _ longest: Int, _ stream: inout Stream) -> Negotiation.Outcome? {
        var negotiation = negotiation
        var output = HandshakeOutput()
        while true {
            do throws(BlockError) {
                let (consumed, step) = try negotiation.advance(stream.arrived, &output)
                precondition(consumed <= stream.count, "more was consumed than had come")
                precondition(output.take().count < 1 << 20, "a megabyte of questions")
                stream.drop(consumed)
                switch step {
                case .needsMore:
                    if consumed > 0 { continue }
                    // The greeting of an old server is the longest thing that is not an answer.
                    precondition(stream.count < longest + 256, "an answer that fits is not taken")
                    guard stream.receive() else { return nil }
                case .startTLS:
                    stream.forgetArrived()
                    negotiation.tlsStarted(&output)
                case .done(let outcome): return outcome
                }
            } catch { return nil }
        }
    }

    private static let requests: [(command: NBDCommand, byteCount: UInt64)] = [
        (.read, 600), (.write, 4096), (.blockStatus, 1 << 30), (.flush, 0), (.read, 1), (.trim, 1 << 20), (.read, 100_000),
    ]

    private static func replies(_ session: NBDClientSession, _ stream: inout Stream) {
        var transmission = ClientTransmission(session)
        var open: [Int: UInt64] = [:]
        for request in requests {
            let (slot, _) = transmission.begin(request.command, offset: 4096, byteCount: request.byteCount)
            open[slot] = request.byteCount
        }
        func check(_ slot: Int, _ place: Int, _ count: Int) {
            guard let size = open[slot] else { preconditionFailure("an event of a request that is over") }
            precondition(place >= 0 && count >= 0 && UInt64(place) + UInt64(count) <= size, "data outside of what was asked for")
        }
        while true {
            do throws(DecodingFailure) {
                let (consumed, event) = try transmission.consume(stream.arrived)
                precondition(consumed <= stream.count, "more was consumed than had come")
                stream.drop(consumed)
                switch event {
                case .needsMore(let count):
                    precondition(count > stream.count && count <= 64 + ClientTransmission.chunkPayloadByteCount, "waiting for what is there, or for too much")
                    guard stream.receive() else { return }
                case .data(let slot, let place, let count):
                    check(slot, place, count)
                    var rest = count
                    while rest > 0 {
                        let step = min(rest, stream.count)
                        stream.drop(step)
                        rest -= step
                        if rest > 0, !stream.receive() { return }
                    }
                case .zeroes(let slot, let place, let count): check(slot, place, count)
                case .extent(let slot, let count, _):
                    check(slot, 0, count)
                    precondition(count > 0, "an extent of no bytes")
                case .finished(let slot, _):
                    precondition(open.removeValue(forKey: slot) != nil, "a request that ends twice")
                case .nothing: precondition(consumed > 0 || transmission.requestsInFlight == open.count, "no progress")
                }
            } catch { return }
        }
    }

    // MARK: Seeds

    private static func answer(_ option: UInt32, _ type: UInt32, _ payload: [UInt8] = []) -> [UInt8] {
        UInt64(0x0003_e889_0455_65a9).bigEndianBytes + option.bigEndianBytes + type.bigEndianBytes + UInt32(payload.count).bigEndianBytes + payload
    }

    /// The cookie of a request by its number.
    private static func cookie(_ number: Int) -> [UInt8] { (UInt64(number + 1) << 24 | UInt64(number)).bigEndianBytes }

    private static func chunk(_ type: UInt16, _ number: Int, extended: Bool, _ payload: [UInt8] = [], done: Bool = true) -> [UInt8] {
        let head = (extended ? NBDMagic.extendedReply : NBDMagic.structuredReply).bigEndianBytes + UInt16(done ? 1 : 0).bigEndianBytes + type.bigEndianBytes + cookie(number)
        return head + (extended ? UInt64(4096).bigEndianBytes + UInt64(payload.count).bigEndianBytes : UInt32(payload.count).bigEndianBytes) + payload
    }

    private static func chunks(extended: Bool) -> [UInt8] {
        let offset = UInt64(4096).bigEndianBytes
        var status = UInt32(3).bigEndianBytes
        if extended {
            status += UInt32(1).bigEndianBytes
            for number: UInt64 in [1 << 20, 3] { status += number.bigEndianBytes }
        } else {
            for number: UInt32 in [1 << 20, 3] { status += number.bigEndianBytes }
        }
        let hole = UInt64(4196).bigEndianBytes + UInt32(500).bigEndianBytes
        let text = UInt32(5).bigEndianBytes + UInt16(2).bigEndianBytes + Array("no".utf8)
        let place = UInt32(22).bigEndianBytes + UInt16(0).bigEndianBytes + offset
        var bytes = chunk(1, 0, extended: extended, offset + [UInt8](repeating: 7, count: 100), done: false)
        bytes += chunk(2, 0, extended: extended, hole)
        bytes += chunk(0, 1, extended: extended)
        bytes += chunk(extended ? 6 : 5, 2, extended: extended, status)
        bytes += chunk(0x8001, 3, extended: extended, text)
        return bytes + chunk(0x8002, 4, extended: extended, place)
    }

    package static func seeds() -> [[UInt8]] {
        let greeting = Array("NBDMAGICIHAVEOPT".utf8) + UInt16(3).bigEndianBytes
        var go = answer(7, 3, UInt16(0).bigEndianBytes + UInt64(1 << 30).bigEndianBytes + UInt16(13).bigEndianBytes)
        var sizes = UInt16(3).bigEndianBytes
        for size: UInt32 in [512, 4096, 1 << 20] { sizes += size.bigEndianBytes }
        go += answer(7, 3, sizes) + answer(7, 1)
        let context = answer(10, 4, UInt32(3).bigEndianBytes + Array("base:allocation".utf8)) + answer(10, 1)
        var simple: [UInt8] = []
        for number in [0, 1, 3] {
            simple += NBDMagic.simpleReply.bigEndianBytes + UInt32(0).bigEndianBytes + cookie(number)
            if number == 0 { simple += [UInt8](repeating: 1, count: 600) }
        }
        let refused: UInt32 = 1 << 31 | 1
        let listing = answer(3, 2, UInt32(4).bigEndianBytes + Array("disktext".utf8)) + answer(3, 1)
        let oldest = UInt64(1 << 20).bigEndianBytes + UInt16(3).bigEndianBytes
        let oldstyle = Array("NBDMAGIC".utf8) + UInt64(0x4202_8186_1253).bigEndianBytes + UInt64(8192).bigEndianBytes
        let parts: [(UInt8, UInt8, [[UInt8]])] = [
            (2, 0, [greeting, answer(11, 1), context, go, chunks(extended: true)]), (1, 0, [greeting, answer(8, 1), context, go, chunks(extended: false)]),
            (0, 3, [greeting, go, simple]), (2, 0, [greeting, answer(11, refused), answer(8, 1), answer(10, refused), go, chunks(extended: false)]),
            (2, 0, [greeting, answer(11, refused), answer(8, refused), answer(7, refused), oldest]), (4, 0, [greeting, answer(5, 1), answer(11, 1)]),
            (8, 0, [greeting, answer(8, 1), listing, answer(11, 1), go, context]), (16, 0, [simple]), (17, 0, [chunks(extended: false)]),
            (18, 1, [chunks(extended: true)]), (0, 0, [oldstyle, [UInt8](repeating: 0, count: 128)]),
        ]
        return parts.map { [$0.0, $0.1] + $0.2.flatMap(\.self) }
    }

    package static var dictionary: [[UInt8]] {
        var words = [UInt64(0x0003_e889_0455_65a9).bigEndianBytes]
        for magic in [NBDMagic.simpleReply, NBDMagic.structuredReply, NBDMagic.extendedReply] { words.append(magic.bigEndianBytes) }
        for number: UInt32 in 1...11 {
            words.append(number.bigEndianBytes)
            words.append((1 << 31 | number).bigEndianBytes)
        }
        words += (0..<7).map(cookie)
        return words + [[0x80, 1], [0x80, 2], Array("base:allocation".utf8), [0xff, 0xff, 0xff, 0xff]]
    }
}
