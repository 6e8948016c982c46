import NBDProtocol
import StrataBase
import StrataTesting
import Testing

@Suite("NBD handshake, client side")
struct ClientHandshakeTests {
    /// Feeds a client what a server sends, and collects what it answers.
    struct Run {
        var handshake: ClientHandshake
        var sent: [UInt8] = []
        var pending: [UInt8] = []
        var verdict = ClientHandshake.Verdict.needsMore
        var error: BlockError?

        init(_ wishes: ClientHandshake.Wishes = .init(exportName: "disk")) { handshake = ClientHandshake(wishes) }

        mutating func feed(_ bytes: [UInt8], pieces: Int = .max) {
            var rest = bytes[...]
            while !rest.isEmpty, verdict == .needsMore, error == nil {
                pending += rest.prefix(pieces)
                rest = rest.dropFirst(pieces)
                take()
            }
            pending += rest
        }

        private mutating func take() {
            while verdict == .needsMore {
                var output = HandshakeOutput()
                do throws(BlockError) {
                    var state = handshake
                    let (consumed, next) = try state.consume(pending.span.bytes, &output)
                    handshake = state
                    pending.removeFirst(consumed)
                    verdict = next
                    sent += output.bytes
                    if consumed == 0 { return }
                } catch {
                    self.error = error
                    return
                }
            }
        }

        var session: NBDClientSession? { if case .transmission(let session) = verdict { session } else { nil } }
    }

    static let greeting = WireBytes().text("NBDMAGICIHAVEOPT").u16(3)
    static let exportInfo = WireBytes().u16(0).u64(1 << 20).u16(1 | 4 | 8)
    static let blockSizes = WireBytes().u16(3).u32(512).u32(4096).u32(1 << 20)

    /// What a server sends that knows everything.
    static let richServer = greeting
        .optionReply(11, 1)
        .optionReply(10, 4, WireBytes().u32(7).text("base:allocation")).optionReply(10, 1)
        .optionReply(7, 3, exportInfo).optionReply(7, 3, blockSizes).optionReply(7, 3, WireBytes().u16(2).text("for people")).optionReply(7, 1)

    @Test("with a server that knows everything the session has all of it, however the bytes arrive", arguments: [1, 2, 3, 19, 20, 21, Int.max])
    func rich(pieces: Int) {
        var run = Run()
        run.feed(Self.richServer.bytes, pieces: pieces)
        #expect(run.session == NBDClientSession(
            byteCount: 1 << 20, flags: [.hasFlags, .sendFlush, .sendFUA], blockSizes: NBDBlockSizes(minimum: 512, preferred: 4096, maximum: 1 << 20),
            replyStyle: .extended, metaContextID: 7), "\(run)")
        let asked = WireBytes().u32(3).option(11).option(10, WireBytes().string("disk").u32(1).string("base:allocation"))
            .option(7, WireBytes().string("disk").u16(1).u16(3))
        #expect(run.sent == asked.bytes)
        #expect(run.pending.isEmpty)
    }

    @Test("client and server of ours agree", arguments: [NBDSession.ReplyStyle.simple, .structured, .extended])
    func bothSides(style: NBDSession.ReplyStyle) {
        var client = Run(.init(exportName: "disk", replyStyle: style))
        var server = HandshakeRun()
        var greeting = HandshakeOutput()
        server.handshake.greet(&greeting)
        client.feed(greeting.bytes)
        while client.verdict == .needsMore, client.error == nil, server.verdict == .needsMore || !server.sent.isEmpty {
            server.feed(client.sent)
            client.sent = []
            let answer = server.sent
            server.sent = []
            if answer.isEmpty { break }
            client.feed(answer)
        }
        guard case .transmission(let theirs) = server.verdict, let ours = client.session else { Issue.record("\(client) \(server)"); return }
        #expect(ours.byteCount == theirs.export.byteCount)
        #expect(ours.replyStyle == theirs.replyStyle)
        #expect(ours.flags == theirs.export.flags)
        #expect(ours.metaContextID == theirs.metaContexts.first?.identifier)
    }

    @Test("a server without extended headers is asked for structured replies, and one without those gets by")
    func older() {
        var run = Run()
        run.feed(Self.greeting.optionReply(11, 1 << 31 | 1).optionReply(8, 1).optionReply(10, 1 << 31 | 1, WireBytes().text("no contexts"))
            .optionReply(7, 3, Self.exportInfo).optionReply(7, 1).bytes)
        #expect(run.session?.replyStyle == .structured)
        #expect(run.session?.metaContextID == nil)
        run = Run()
        run.feed(Self.greeting.optionReply(11, 1 << 31 | 1).optionReply(8, 1 << 31 | 1).optionReply(7, 3, Self.exportInfo).optionReply(7, 1).bytes)
        #expect(run.session?.replyStyle == .simple)
        #expect(run.session?.blockSizes == nil)
    }

    @Test("a server without GO is asked by EXPORT_NAME, with and without its 124 zeroes", arguments: [UInt16(1), 3])
    func exportName(flags: UInt16) {
        var run = Run()
        run.feed(WireBytes().text("NBDMAGICIHAVEOPT").u16(flags).optionReply(11, 1 << 31 | 1).optionReply(8, 1 << 31 | 1).optionReply(7, 1 << 31 | 1)
            .u64(4096).u16(3).zeroes(flags == 3 ? 0 : 124).bytes, pieces: 7)
        #expect(run.session == NBDClientSession(byteCount: 4096, flags: [.hasFlags, .readOnly], blockSizes: nil, replyStyle: .simple, metaContextID: nil))
        #expect(run.sent.suffix(20) == WireBytes().option(1, WireBytes().text("disk")).bytes[...])
    }

    @Test("newstyle that is not fixed, and oldstyle, are understood")
    func oldest() {
        var run = Run()
        run.feed(WireBytes().text("NBDMAGICIHAVEOPT").u16(0).u64(4096).u16(1).zeroes(124).bytes, pieces: 5)
        #expect(run.session?.byteCount == 4096)
        #expect(run.sent == WireBytes().u32(0).option(1, WireBytes().text("disk")).bytes)
        let oldstyle = WireBytes().text("NBDMAGIC").u64(0x4202_8186_1253).u64(8192).u16(0).u16(3).zeroes(124)
        run = Run(.init(exportName: ""))
        run.feed(oldstyle.bytes, pieces: 5)
        #expect(run.session?.byteCount == 8192 && run.session?.flags == [.hasFlags, .readOnly])
        #expect(run.sent.isEmpty)
        run = Run()
        run.feed(oldstyle.bytes)
        #expect(run.error?.code == .notFound)
    }

    @Test("what the server says when it refuses reaches the user, on one line")
    func refusals() {
        let upToGo = Self.greeting.optionReply(11, 1 << 31 | 1).optionReply(8, 1 << 31 | 1)
        for (type, code) in [(UInt32(6), BlockError.Code.notFound), (2, .accessDenied), (5, .accessDenied), (7, .connection), (8, .unsupported), (99, .connection)] {
            var run = Run()
            run.feed(upToGo.optionReply(7, 1 << 31 | type, WireBytes().text("because\u{1b}[31m\nof reasons")).bytes)
            #expect(run.error?.code == code, "\(run)")
            #expect(run.error?.message.contains("because [31m of reasons") == true, "\(run)")
        }
        var run = Run(.init(exportName: "disk", usesTLS: true))
        run.feed(Self.greeting.optionReply(5, 1 << 31 | 1).bytes)
        #expect(run.error?.code == .unsupported)
        run = Run()
        run.feed(Self.greeting.optionReply(11, 1 << 31 | 5).bytes)
        #expect(run.error?.code == .accessDenied)
    }

    @Test("a client that wants TLS goes nowhere without: not with an older server, nor with one that answers as if it had agreed", arguments: [
        WireBytes().text("NBDMAGICIHAVEOPT").u16(0).u64(4096).u16(1).zeroes(124), WireBytes().text("NBDMAGIC").u64(0x4202_8186_1253).u64(8192).u16(0).u16(3).zeroes(124),
        greeting.optionReply(5, 1 << 31 | 1), greeting.optionReply(5, 1 << 31 | 2), greeting.optionReply(11, 1), greeting.optionReply(7, 3, exportInfo).optionReply(7, 1),
        greeting.optionReply(5, 3, exportInfo), greeting.optionReply(5, 1, WireBytes().u8(0)),
    ])
    func downgrade(server: WireBytes) {
        for export in ["", "disk"] {
            var run = Run(.init(exportName: export, usesTLS: true))
            run.feed(server.bytes, pieces: 5)
            #expect(run.error != nil && run.session == nil && run.verdict != .startTLS, "\(run)")
        }
    }

    @Test("bytes in clear behind the agreement on TLS are never used")
    func injection() {
        var run = Run(.init(exportName: "disk", usesTLS: true))
        run.feed(Self.greeting.optionReply(5, 1).bytes)
        #expect(run.verdict == .startTLS)
        run.verdict = .needsMore
        run.feed(WireBytes().optionReply(11, 1).bytes)
        #expect(run.error?.code == .connection)
    }

    @Test("lies are found out", arguments: [
        ("another option answered", WireBytes().optionReply(8, 1)), ("a type that does not fit", WireBytes().optionReply(11, 3)),
        ("an acknowledgement with a payload", WireBytes().optionReply(11, 1, WireBytes().u32(0))), ("a wrong magic", WireBytes().zeroes(20)),
        ("an endless payload", WireBytes().u64(0x0003_e889_0455_65a9).u32(11).u32(1).u32(0xffff_ffff)),
        ("a context nobody asked for", WireBytes().optionReply(11, 1).optionReply(10, 4, WireBytes().u32(1).text("evil:context"))),
        ("a context twice", WireBytes().optionReply(11, 1).optionReply(10, 4, WireBytes().u32(1).text("base:allocation")).optionReply(10, 4, WireBytes().u32(2).text("base:allocation"))),
        ("a context without a number", WireBytes().optionReply(11, 1).optionReply(10, 4, WireBytes().u16(1))),
        ("an export without a size", WireBytes().optionReply(11, 1).optionReply(10, 1).optionReply(7, 1)),
        ("an enormous export", WireBytes().optionReply(11, 1).optionReply(10, 1).optionReply(7, 3, WireBytes().u16(0).u64(1 << 63).u16(1)).optionReply(7, 1)),
        ("short information", WireBytes().optionReply(11, 1).optionReply(10, 1).optionReply(7, 3, WireBytes().u16(0).u64(1))),
        ("a block size of 3", WireBytes().optionReply(11, 1).optionReply(10, 1).optionReply(7, 3, WireBytes().u16(3).u32(3).u32(4096).u32(1 << 20))),
        ("a size between blocks", WireBytes().optionReply(11, 1).optionReply(10, 1).optionReply(7, 3, WireBytes().u16(0).u64(513).u16(1)).optionReply(7, 3, blockSizes).optionReply(7, 1)),
    ])
    func lies(name: String, bytes: WireBytes) {
        var run = Run()
        run.feed(Self.greeting.bytes + bytes.bytes)
        #expect(run.error?.code == .connection, "\(name): \(run)")
    }

    @Test("a server that never comes to an end is left")
    func endless() {
        var run = Run()
        run.feed(Self.greeting.optionReply(11, 1).optionReply(10, 1).bytes)
        let chatter = WireBytes().optionReply(7, 3, WireBytes().u16(2).text(String(repeating: "x", count: 4000))).bytes
        for _ in 0..<1000 where run.error == nil { run.feed(chatter) }
        #expect(run.error?.code == .connection)
    }

    /// What servers of every age send to a client that gets through, and what that client wishes.
    static let goodServers: [(name: String, bytes: WireBytes, export: String)] = [
        ("everything", richServer, "disk"),
        ("structured replies", greeting.optionReply(11, 1 << 31 | 1).optionReply(8, 1).optionReply(10, 4, WireBytes().u32(7).text("base:allocation")).optionReply(10, 1)
            .optionReply(7, 3, exportInfo).optionReply(7, 1), "disk"),
        ("simple replies", greeting.optionReply(11, 1 << 31 | 1).optionReply(8, 1 << 31 | 1).optionReply(7, 3, blockSizes).optionReply(7, 3, exportInfo).optionReply(7, 1), "disk"),
        ("no GO", WireBytes().text("NBDMAGICIHAVEOPT").u16(1).optionReply(11, 1 << 31 | 1).optionReply(8, 1 << 31 | 1).optionReply(7, 1 << 31 | 1)
            .u64(4096).u16(3).zeroes(124), "disk"),
        ("newstyle", WireBytes().text("NBDMAGICIHAVEOPT").u16(0).u64(4096).u16(1).zeroes(124), "disk"),
        ("oldstyle", WireBytes().text("NBDMAGIC").u64(0x4202_8186_1253).u64(8192).u16(0).u16(3).zeroes(124), ""),
    ]

    @Test("cut off at any byte it waits; with any byte changed it is an error or another valid session, never a trap", arguments: goodServers.map(\.name))
    func damage(name: String) throws {
        let server = try #require(Self.goodServers.first { $0.name == name })
        let (good, wishes) = (server.bytes.bytes, ClientHandshake.Wishes(exportName: server.export))
        var whole = Run(wishes)
        whole.feed(good)
        #expect(whole.session != nil, "\(whole)")
        for end in 0..<good.count {
            var run = Run(wishes)
            run.feed(Array(good[..<end]))
            #expect(run.verdict == .needsMore && run.error == nil, "cut at \(end): \(run)")
        }
        for index in good.indices {
            for flip in [UInt8(1), 0x80, 0xff, 0x7f] {
                var bytes = good
                bytes[index] ^= flip
                var run = Run(wishes)
                run.feed(bytes)
                if let session = run.session { #expect(session.byteCount >= 0 && session.byteCount <= Int.max - (1 << 20)) }
            }
        }
        var random = SeededGenerator(seed: 11)
        for _ in 0..<5_000 {
            var bytes = good
            for _ in 0..<Int.random(in: 1...4, using: &random) {
                let index = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<3, using: &random) {
                case 0: bytes[index] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.remove(at: index)
                default: bytes.insert(UInt8.random(in: 0...255, using: &random), at: index)
                }
            }
            var run = Run(wishes)
            run.feed(bytes, pieces: Int.random(in: 1...200, using: &random))
            #expect(run.pending.count <= bytes.count)
        }
    }
}
