import StrataBase
import StrataTesting
import Testing

@testable import CharacterDevices

@Suite("websockets")
struct WebSocketTests {
    /// A client's frame, written down from the picture in section 5.2.
    private static func frame(_ opcode: UInt8, _ payload: [UInt8], isFinal: Bool = true, mask: [UInt8] = [0x37, 0xfa, 0x21, 0x3d]) -> [UInt8] {
        var bytes: [UInt8] = [(isFinal ? 0x80 : 0) | opcode]
        switch payload.count {
        case 0...125: bytes.append(0x80 | UInt8(payload.count))
        case 126...65535: bytes += [0xfe, UInt8(payload.count / 256), UInt8(payload.count % 256)]
        default: bytes += [0xff, 0, 0, 0, 0] + [3, 2, 1].map { UInt8(payload.count >> ($0 * 8) & 0xff) } + [UInt8(payload.count & 0xff)]
        }
        return bytes + mask + payload.enumerated().map { $1 ^ mask[$0 % 4] }
    }

    private static func text(_ verdict: WebSocketRequest.Verdict) -> String {
        switch verdict {
        case .incomplete: "incomplete"
        case .accepted(let answer, let rest): String(decoding: answer + rest, as: UTF8.self)
        case .refused(let answer): String(decoding: answer, as: UTF8.self)
        }
    }

    @Test("the examples of RFC 6455 are understood: the key, a masked frame, fragments, a ping between them")
    func examples() {
        #expect(WebSocketRequest.acceptance(of: "dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        var frames = WebSocketFrames()
        // Section 5.7 has text frames; ours carry bytes.
        let hello: [UInt8] = [0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]
        #expect(frames.receive(hello) == .init(data: Array("Hello".utf8)))
        #expect(frames.receive(Self.frame(2, Array("Hel".utf8), isFinal: false)) == .init(data: Array("Hel".utf8)))
        #expect(frames.receive(Self.frame(9, Array("Hello".utf8))) == .init(answers: [0x8a, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]))
        #expect(frames.receive(Self.frame(0, Array("lo".utf8))) == .init(data: Array("lo".utf8)))
        #expect(WebSocketFrames.frame([UInt8](repeating: 7, count: 256)[...]).prefix(4) == [0x82, 0x7e, 0x01, 0x00])
        #expect(WebSocketFrames.frame([UInt8](repeating: 7, count: 65536)[...]).prefix(10) == [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0])
    }

    @Test("frames of all lengths arrive whole, in whatever pieces their bytes come", arguments: 1...10)
    func pieces(seed: UInt64) {
        var dice = SeededGenerator(seed: seed)
        var (wire, sent, pings): ([UInt8], [UInt8], Int) = ([], [], 0)
        for _ in 0..<30 {
            let count = [0, 1, 125, 126, 300, 65535, 65536, 70000].randomElement(using: &dice) ?? 0
            let payload = (0..<count).map { _ in UInt8.random(in: 0...255, using: &dice) }
            let mask = (0..<4).map { _ in UInt8.random(in: 0...255, using: &dice) }
            let cut = Int.random(in: 0...count, using: &dice)
            wire += Self.frame(2, Array(payload[..<cut]), isFinal: false, mask: mask)
            if Bool.random(using: &dice) {
                wire += Self.frame(9, [1])
                pings += 1
            }
            wire += Self.frame(0, Array(payload[cut...]), mask: mask)
            sent += payload
        }
        var frames = WebSocketFrames()
        var (got, answers): ([UInt8], Int) = ([], 0)
        var position = 0
        while position < wire.count {
            let count = min(Int.random(in: 1...9000, using: &dice), wire.count - position)
            let result = frames.receive(Array(wire[position..<position + count]))
            position += count
            got += result.data
            if !result.answers.isEmpty { answers += 1 }
            #expect(!result.isClosed)
        }
        #expect(got == sent, "seed \(seed)")
        #expect(answers <= pings && (pings == 0 || answers > 0), "seed \(seed)")
    }

    @Test("random bytes end the conversation or are waited for, and never more memory is asked for than came", arguments: 1...20)
    func hostile(seed: UInt64) {
        var dice = SeededGenerator(seed: seed)
        for _ in 0..<200 {
            var frames = WebSocketFrames()
            let bytes = (0..<Int.random(in: 0...400, using: &dice)).map { _ in UInt8.random(in: 0...255, using: &dice) }
            let result = frames.receive(bytes)
            #expect(result.data.count <= bytes.count)
            if result.isClosed { #expect(frames.receive([0x82, 0x80, 0, 0, 0, 0]).data.isEmpty) }
        }
    }

    @Test("a request without an end is refused, one in pieces is not, and what follows it is kept")
    func requests() {
        var endless = WebSocketRequest()
        #expect(endless.receive([UInt8](repeating: UInt8(ascii: "x"), count: 3000)) == .incomplete)
        #expect(Self.text(endless.receive([UInt8](repeating: UInt8(ascii: "x"), count: 3000))).hasPrefix("HTTP/1.1 431 "))
        let request =
            "GET / HTTP/1.1\r\nhost: h\r\nUPGRADE: h2c , WebSocket\r\nconnection: keep-alive, UPGRADE\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            + "sec-websocket-version: 13\r\n\r\nrest"
        var pieces = WebSocketRequest()
        for byte in request.utf8.dropLast(5) { #expect(pieces.receive([byte]) == .incomplete) }
        let answer = Self.text(pieces.receive(Array("\nrest".utf8)))
        #expect(answer.hasPrefix("HTTP/1.1 101 ") && answer.hasSuffix("\r\n\r\nrest") && !answer.contains("Sec-WebSocket-Protocol"))
    }
}

@Suite("telnet")
struct TelnetTests {
    @Test("commands, options and what lies between SB and SE are taken out, doubled bytes of 255 are one, in whatever pieces they come", arguments: 1...10)
    func commands(seed: UInt64) {
        let parts: [(wire: [UInt8], data: [UInt8])] = [
            ([97], [97]), ([255, 255], [255]), ([255, 241], []), ([255, 243], []), ([255, 251, 1], []), ([255, 254, 255], []), ([0], [0]),
            ([255, 250, 24, 0, 86, 255, 255, 84, 255, 240], []), ([240, 250], [240, 250]),
        ]
        var dice = SeededGenerator(seed: seed)
        var (wire, data): ([UInt8], [UInt8]) = ([], [])
        for _ in 0..<300 {
            let part = parts[Int.random(in: 0..<parts.count, using: &dice)]
            wire += part.wire
            data += part.data
        }
        var commands = TelnetCommands()
        var got: [UInt8] = []
        while !wire.isEmpty {
            let count = min(Int.random(in: 1...7, using: &dice), wire.count)
            got += commands.remove(from: Array(wire[..<count]))
            wire.removeFirst(count)
        }
        #expect(got == data, "seed \(seed)")
    }
}
