import NBDProtocol
import StrataBase
import Testing

@Suite("NBD handshake, client that lists")
struct ListHandshakeTests {
    /// Feeds a client what a server sends, and collects what it answers.
    struct Run {
        var handshake: ListHandshake
        var sent: [UInt8] = []
        var pending: [UInt8] = []
        var exports: [ListedExport]?
        var startsTLS = false
        var error: BlockError?
        private var isWaiting: Bool { exports == nil && !startsTLS && error == nil }

        init(usesTLS: Bool = false) { handshake = ListHandshake(usesTLS: usesTLS) }

        mutating func feed(_ bytes: [UInt8], pieces: Int = .max) {
            var rest = bytes[...]
            while !rest.isEmpty, isWaiting {
                pending += rest.prefix(pieces)
                rest = rest.dropFirst(pieces)
                take()
            }
        }

        private mutating func take() {
            while isWaiting {
                var output = HandshakeOutput()
                do throws(BlockError) {
                    var state = handshake
                    let (consumed, step) = try state.advance(pending.span.bytes, &output)
                    handshake = state
                    pending.removeFirst(consumed)
                    sent += output.bytes
                    switch step {
                    case .done(let found): exports = found
                    case .startTLS: startsTLS = true
                    case .needsMore: if consumed == 0 { return }
                    }
                } catch { self.error = error }
            }
        }
    }

    static let unsupported: UInt32 = 1 << 31 | 1
    static let greeting = WireBytes().text("NBDMAGICIHAVEOPT").u16(3)
    static let exportInfo = WireBytes().u16(0).u64(1 << 20).u16(1 | 4 | 8)
    static let blockSizes = WireBytes().u16(3).u32(1).u32(4096).u32(32 << 20)

    /// Two exports, of which the second keeps everything to itself but its name.
    static let server = greeting.optionReply(11, 1)
        .optionReply(3, 2, WireBytes().string("disk").text("the first")).optionReply(3, 2, WireBytes().string("other")).optionReply(3, 1)
        .optionReply(6, 3, exportInfo).optionReply(6, 3, WireBytes().u16(2).text("for people")).optionReply(6, 3, blockSizes).optionReply(6, 1)
        .optionReply(9, 4, WireBytes().u32(0).text("base:allocation")).optionReply(9, 4, WireBytes().u32(0).text("qemu:dirty-bitmap:b")).optionReply(9, 1)
        .optionReply(6, 1 << 31 | 2, WireBytes().text("not yours")).optionReply(9, unsupported)

    @Test("everything that a server says of its exports is there, however the bytes arrive", arguments: [1, 2, 3, 19, 20, 21, Int.max])
    func everything(pieces: Int) throws {
        var run = Run()
        run.feed(Self.server.bytes, pieces: pieces)
        let exports = try #require(run.exports, "\(run)")
        #expect(exports.map(\.name) == ["disk", "other"])
        #expect(exports[0].description == "for people" && exports[0].byteCount == 1 << 20 && exports[0].flags == [.hasFlags, .sendFlush, .sendFUA])
        #expect(exports[0].blockSizes == NBDBlockSizes(minimum: 1, preferred: 4096, maximum: 32 << 20) && exports[0].hasExtendedHeaders)
        #expect(exports[0].metaContexts == ["base:allocation", "qemu:dirty-bitmap:b"])
        #expect(exports[1].byteCount == nil && exports[1].metaContexts.isEmpty)
        #expect(run.sent.suffix(16) == WireBytes().option(2).bytes[...], "it says goodbye")
    }

    @Test("an older server is asked for less, and one that lists nothing has nothing")
    func older() {
        var run = Run()
        run.feed(Self.greeting.optionReply(11, Self.unsupported).optionReply(8, Self.unsupported).optionReply(3, 2, WireBytes().string("a")).optionReply(3, 1)
            .optionReply(6, Self.unsupported).bytes)
        #expect(run.exports == [ListedExport(name: "a")])
        run = Run()
        run.feed(Self.greeting.optionReply(11, 1).optionReply(3, 1).bytes)
        #expect(run.exports == [])
    }

    @Test("a server that will not list, wants TLS or has none is left with its own words")
    func refusals() {
        for (bytes, usesTLS, code, text) in [
            (WireBytes().optionReply(11, 1).optionReply(3, 1 << 31 | 2, WireBytes().text("a secret")), false, BlockError.Code.accessDenied, "a secret"),
            (WireBytes().optionReply(11, 1 << 31 | 5), false, .accessDenied, "requires TLS"), (WireBytes().optionReply(5, Self.unsupported), true, .unsupported, "TLS"),
        ] {
            var run = Run(usesTLS: usesTLS)
            run.feed(Self.greeting.bytes + bytes.bytes)
            #expect(run.error?.code == code && run.error?.message.contains(text) == true, "\(run)")
        }
        for greeting in [WireBytes().text("NBDMAGIC").u64(0x4202_8186_1253), WireBytes().text("NBDMAGICIHAVEOPT").u16(0)] {
            var run = Run()
            run.feed(greeting.bytes)
            #expect(run.error?.code == .unsupported, "\(run)")
        }
    }

    @Test("over TLS nothing that came in clear is used")
    func encrypted() {
        var run = Run(usesTLS: true)
        run.feed(Self.greeting.optionReply(5, 1).bytes)
        #expect(run.startsTLS)
        run.startsTLS = false
        run.feed(WireBytes().optionReply(11, 1).bytes)
        #expect(run.error?.code == .connection)
    }

    @Test("lies are found out", arguments: [
        ("no NBD server", WireBytes().text("SSH-2.0-OpenSSH_")), ("another option answered", greeting.optionReply(8, 1)), ("a wrong magic", greeting.zeroes(20)),
        ("an endless payload", greeting.u64(0x0003_e889_0455_65a9).u32(11).u32(1).u32(.max)),
        ("an acknowledgement with a payload", greeting.optionReply(11, 1, WireBytes().u8(0))),
        ("a name longer than its answer", greeting.optionReply(11, 1).optionReply(3, 2, WireBytes().u32(5).text("disk"))),
        ("a name without end", greeting.optionReply(11, 1).optionReply(3, 2, WireBytes().u32(.max).text("disk"))),
        ("a name of 4097 bytes", greeting.optionReply(11, 1).optionReply(3, 2, WireBytes().string(String(repeating: "n", count: 4097)))),
        ("a description of 4097 bytes", greeting.optionReply(11, 1).optionReply(3, 2, WireBytes().string("n").text(String(repeating: "d", count: 4097)))),
        ("a name that is no text", greeting.optionReply(11, 1).optionReply(3, 2, WireBytes().u32(2).u8(0xff).u8(0xfe))),
        ("information where exports are due", greeting.optionReply(11, 1).optionReply(3, 3, exportInfo)),
        ("a size beyond 2^63", greeting.optionReply(11, 1).optionReply(3, 2, WireBytes().string("a")).optionReply(3, 1).optionReply(6, 3, WireBytes().u16(0).u64(1 << 63).u16(1))),
        ("short information", greeting.optionReply(11, 1).optionReply(3, 2, WireBytes().string("a")).optionReply(3, 1).optionReply(6, 3, WireBytes().u8(0))),
        ("a context without a number", greeting.optionReply(11, 1).optionReply(3, 2, WireBytes().string("a")).optionReply(3, 1).optionReply(6, 1).optionReply(9, 4, WireBytes().u16(0))),
    ])
    func lies(name: String, bytes: WireBytes) {
        var run = Run()
        run.feed(bytes.bytes)
        #expect(run.error?.code == .connection, "\(name): \(run)")
    }

    @Test("a server whose exports or contexts have no end is left")
    func endless() {
        var run = Run()
        run.feed(Self.greeting.optionReply(11, 1).bytes)
        let one = WireBytes().optionReply(3, 2, WireBytes().string("x")).bytes
        for _ in 0...ListHandshake.exportCount where run.error == nil { run.feed(one) }
        #expect(run.error?.code == .connection)
        run = Run()
        run.feed(Self.greeting.optionReply(11, 1).optionReply(3, 2, WireBytes().string("a")).optionReply(3, 1).optionReply(6, 1).bytes)
        let context = WireBytes().optionReply(9, 4, WireBytes().u32(0).text("a:b")).bytes
        for _ in 0..<5000 where run.error == nil { run.feed(context) }
        #expect(run.error?.code == .connection)
    }

    @Test("a server that tells of each export as much as may be told of one is left before memory is full")
    func endlessContexts() {
        var run = Run()
        run.feed(Self.greeting.optionReply(11, 1).bytes)
        for number in 0..<100 { run.feed(WireBytes().optionReply(3, 2, WireBytes().string("e\(number)")).bytes) }
        run.feed(WireBytes().optionReply(3, 1).bytes)
        let context = WireBytes().optionReply(9, 4, WireBytes().u32(0).text(String(repeating: "c", count: 4000))).bytes
        var byteCount = 0
        for _ in 0..<100 where run.error == nil {
            run.feed(WireBytes().optionReply(6, 1).bytes)
            for _ in 0..<1024 where run.error == nil {
                run.feed(context)
                byteCount += context.count
            }
            run.feed(WireBytes().optionReply(9, 1).bytes)
        }
        #expect(run.error?.message.contains("no end") == true)
        #expect(byteCount <= ListHandshake.answerByteCount + context.count)
    }

    @Test("cut off at any byte it waits; with any byte changed it is an error or another list, never a trap")
    func damage() {
        let good = Self.server.bytes
        for end in 0..<good.count {
            var run = Run()
            run.feed(Array(good[..<end]), pieces: 7)
            #expect(run.exports == nil && run.error == nil, "cut at \(end): \(run)")
        }
        for index in good.indices {
            for flip in [UInt8(1), 0x80, 0xff, 0x7f] {
                var bytes = good
                bytes[index] ^= flip
                var run = Run()
                run.feed(bytes)
                #expect(run.exports?.count ?? 0 <= 2)
            }
        }
    }
}
