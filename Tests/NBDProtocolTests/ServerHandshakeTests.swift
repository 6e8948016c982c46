import NBDProtocol
import StrataTesting
import Testing

@Suite("NBD handshake, server side")
struct ServerHandshakeTests {
    private let diskFlags: UInt16 = 1 | 4 | 8  // has flags, flush, FUA

    @Test("the greeting is 18 bytes and offers fixed newstyle without zeroes")
    func greeting() {
        var output = HandshakeOutput()
        ServerHandshake().greet(&output)
        #expect(output.bytes == Array("NBDMAGICIHAVEOPT".utf8) + [0, 3])
    }

    @Test("EXPORT_NAME answers size and flags, with 124 zeroes unless the client declined them", arguments: [UInt32(1), 3])
    func exportName(clientFlags: UInt32) {
        var run = HandshakeRun()
        run.feed(WireBytes().u32(clientFlags).option(1, WireBytes().text("disk")).bytes)
        #expect(run.sent == WireBytes().u64(1 << 20).u16(diskFlags).zeroes(clientFlags == 3 ? 0 : 124).bytes)
        #expect(run.verdict == .transmission(NBDSession(export: run.exports.first, replyStyle: .simple)))
    }

    @Test("EXPORT_NAME works for clients older than fixed newstyle, other options do not")
    func oldClient() {
        var run = HandshakeRun()
        run.feed(WireBytes().u32(0).option(1, WireBytes().text("disk")).bytes)
        guard case .transmission = run.verdict else { Issue.record("\(run.verdict)"); return }
        run = HandshakeRun()
        run.feed(WireBytes().u32(0).option(3).bytes)
        guard case .close = run.verdict else { Issue.record("\(run.verdict)"); return }
        #expect(run.sent.isEmpty)
    }

    @Test("an unknown name in EXPORT_NAME closes the connection silently")
    func unknownExportName() {
        var run = HandshakeRun.inOptions()
        run.feed(WireBytes().option(1, WireBytes().text("nope")).bytes)
        guard case .close = run.verdict else { Issue.record("\(run.verdict)"); return }
        #expect(run.sent.isEmpty)
    }

    @Test("unknown client flags close the connection")
    func unknownClientFlags() {
        var run = HandshakeRun()
        run.feed(WireBytes().u32(4).bytes)
        guard case .close = run.verdict else { Issue.record("\(run.verdict)"); return }
    }

    @Test("LIST names every export with its description")
    func list() {
        var run = HandshakeRun.inOptions()
        run.feed(WireBytes().option(3).bytes)
        let expected = WireBytes().optionReply(3, 2, WireBytes().string("disk").text("the first"))
            .optionReply(3, 2, WireBytes().string("other")).optionReply(3, 1)
        #expect(run.sent == expected.bytes)
        #expect(run.verdict == .needsMore)
    }

    @Test("GO answers what was asked for and enters transmission")
    func go() {
        var run = HandshakeRun.inOptions()
        run.feed(WireBytes().option(8).option(7, WireBytes().string("").u16(3).u16(1).u16(2).u16(3)).bytes)
        let flags = diskFlags | 1 << 7
        let expected = WireBytes().optionReply(8, 1)
            .optionReply(7, 3, WireBytes().u16(1).text("disk"))
            .optionReply(7, 3, WireBytes().u16(2).text("the first"))
            .optionReply(7, 3, WireBytes().u16(3).u32(1).u32(4096).u32(32 << 20))
            .optionReply(7, 3, WireBytes().u16(0).u64(1 << 20).u16(flags))
            .optionReply(7, 1)
        #expect(run.sent == expected.bytes)
        var export = run.exports.first
        export.flags.insert(.sendDF)
        #expect(run.verdict == .transmission(NBDSession(export: export, replyStyle: .structured)))
    }

    @Test("INFO answers as GO does, and the client may go on asking")
    func info() {
        var run = HandshakeRun.inOptions()
        run.feed(WireBytes().option(6, WireBytes().string("disk").u16(0)).option(2).bytes)
        let expected = WireBytes().optionReply(6, 3, WireBytes().u16(0).u64(1 << 20).u16(diskFlags)).optionReply(6, 1).optionReply(2, 1)
        #expect(run.sent == expected.bytes)
        #expect(run.verdict == .close("the client gave up"))
    }

    @Test("an export with large blocks wants its block size asked for")
    func blockSizeRequired() {
        var run = HandshakeRun.inOptions()
        run.feed(WireBytes().option(7, WireBytes().string("other").u16(0)).bytes)
        #expect(replyTypes(run.sent) == [0x8000_0008])
        run.sent = []
        run.feed(WireBytes().option(7, WireBytes().string("other").u16(1).u16(3)).bytes)
        #expect(replyTypes(run.sent) == [3, 3, 1])
    }

    @Test("contexts are chosen by SET for one export, in one go with GO for the same name")
    func setMetaContext() {
        for (goName, expected) in [("disk", [MetaContext.baseAllocation]), ("", [])] {
            var run = HandshakeRun.inOptions()
            run.feed(WireBytes().option(8).option(10, WireBytes().string("disk").u32(2).string("base:allocation").string("x:y")).bytes)
            #expect(run.sent == WireBytes().optionReply(8, 1)
                .optionReply(10, 4, WireBytes().u32(0).text("base:allocation")).optionReply(10, 1).bytes)
            run.feed(WireBytes().option(7, WireBytes().string(goName).u16(0)).bytes)
            guard case .transmission(let session) = run.verdict else { Issue.record("\(run.verdict)"); return }
            #expect(session.metaContexts == expected)
        }
    }

    @Test("extended headers imply structured replies, and are not taken back")
    func extendedHeaders() {
        var run = HandshakeRun.inOptions()
        run.feed(WireBytes().option(11, WireBytes().u8(1)).option(11).option(8).option(7, WireBytes().string("disk").u16(0)).bytes)
        #expect(replyTypes(run.sent) == [0x8000_0003, 1, 0x8000_000a, 3, 1])
        guard case .transmission(let session) = run.verdict else { Issue.record("\(run.verdict)"); return }
        #expect(session.replyStyle == .extended)
        #expect(session.export.flags.isSuperset(of: [.sendDF, .blockStatusPayload]))
    }

    @Test("a later SET replaces an earlier one, even when it fails")
    func setTwice() {
        for second in [WireBytes().string("disk").u32(0), WireBytes().string("nope").u32(0), WireBytes().u32(9)] {
            var run = HandshakeRun.inOptions()
            run.feed(WireBytes().option(8).option(10, WireBytes().string("disk").u32(1).string("base:allocation")).bytes)
            run.feed(WireBytes().option(10, second).option(7, WireBytes().string("disk").u16(0)).bytes)
            guard case .transmission(let session) = run.verdict else { Issue.record("\(run.verdict)"); return }
            #expect(session.metaContexts.isEmpty)
        }
    }

    @Test("LIST_META_CONTEXT understands no query and namespaces; SET does not", arguments: [
        (UInt32(9), [], true), (9, ["base:"], true), (9, ["base:allocation"], true), (9, ["bas"], false), (9, [""], false), (9, ["other:"], false),
        (9, [":"], false), (10, [], false), (10, ["base:"], false), (10, ["base:allocation", "base:allocation"], true), (10, ["BASE:ALLOCATION"], false),
    ] as [(UInt32, [String], Bool)])
    func contextQueries(option: UInt32, queries: [String], found: Bool) {
        var run = HandshakeRun.inOptions()
        var payload = WireBytes().string("disk").u32(UInt32(queries.count))
        for query in queries { payload = payload.string(query) }
        run.feed(WireBytes().option(8).option(option, payload).bytes)
        #expect(replyTypes(run.sent) == [1] + (found ? [4, 1] : [1]))
    }

    @Test("before TLS a server that insists on it answers nothing else, and afterwards what was agreed on in clear is forgotten")
    func encryption() {
        var run = HandshakeRun()
        run.handshake = ServerHandshake(encryption: .required)
        run.feed(WireBytes().u32(3).option(8).option(3).option(6, WireBytes().string("disk").u16(0)).option(77, WireBytes().zeroes(9)).option(5, WireBytes().u8(1)).bytes, pieces: 13)
        #expect(replyTypes(run.sent) == [0x8000_0005, 0x8000_0005, 0x8000_0005, 0x8000_0005, 0x8000_0003])
        run.sent = []
        run.feed(WireBytes().option(5).bytes)
        #expect(run.verdict == .startTLS && run.sent == WireBytes().optionReply(5, 1).bytes)
        run.handshake.tlsStarted()
        (run.verdict, run.sent) = (.needsMore, [])
        run.feed(WireBytes().option(5).option(10, WireBytes().string("disk").u32(1).string("base:allocation")).option(7, WireBytes().string("disk").u16(0)).bytes)
        #expect(replyTypes(run.sent) == [0x8000_0003, 0x8000_0003, 3, 1], "no second TLS, and no structured replies")
        guard case .transmission(let session) = run.verdict else { Issue.record("\(run.verdict)"); return }
        #expect(session.replyStyle == .simple && session.metaContexts.isEmpty)

        run = HandshakeRun()
        run.handshake = ServerHandshake(encryption: .required)
        run.feed(WireBytes().u32(3).option(1, WireBytes().text("disk")).bytes)
        guard case .close = run.verdict else { Issue.record("\(run.verdict)"); return }
        #expect(run.sent.isEmpty, "no export in clear")
    }

    @Test("contexts without structured replies are refused")
    func contextsNeedStructuredReplies() {
        var run = HandshakeRun.inOptions()
        run.feed(WireBytes().option(10, WireBytes().string("disk").u32(1).string("base:allocation")).bytes)
        #expect(replyTypes(run.sent) == [0x8000_0003])
    }

    @Test("what we do not know is refused and the session goes on", arguments: [
        (UInt32(5), UInt32(0x8000_0002)), (4, 0x8000_0001), (12, 0x8000_0001), (0, 0x8000_0001), (0xffff_ffff, 0x8000_0001),
    ])
    func unknownOptions(option: UInt32, reply: UInt32) {
        var run = HandshakeRun.inOptions()
        run.feed(WireBytes().option(option, WireBytes().zeroes(100_000)).option(3).bytes, pieces: 1000)
        #expect(replyTypes(run.sent) == [reply, 2, 2, 1])
        #expect(run.longestPending < 1016, "a skipped payload is not kept")
    }

    @Test("payloads where none belong are refused and skipped", arguments: [UInt32(2), 3, 8])
    func unexpectedPayload(option: UInt32) {
        var run = HandshakeRun.inOptions()
        run.feed(WireBytes().option(option, WireBytes().zeroes(3)).option(6, WireBytes().string("").u16(0)).bytes)
        #expect(replyTypes(run.sent) == [0x8000_0003, 3, 1])
    }

    @Test("an export name at and beyond every limit", arguments: [0, 1, 255, 256, 257, 4095, 4096, 4097, 32 << 10, 1 << 20])
    func nameLengths(count: Int) {
        let name = String(repeating: "n", count: count)
        var run = HandshakeRun.inOptions()
        run.feed(WireBytes().option(7, WireBytes().string(name).u16(0)).option(3).bytes)
        let expected: [UInt32] = count == 0 ? [3, 1] : count > 32 << 10 ? [0x8000_0009] : count > 4096 ? [0x8000_0003] : [0x8000_0006]
        #expect(Array(replyTypes(run.sent).prefix(expected.count)) == (count == 32 << 10 ? [0x8000_0009] : expected))
        #expect(replyPayloads(run.sent).allSatisfy { $0.count <= 4096 }, "error texts echo a bounded part of the name")

        run = HandshakeRun.inOptions()
        run.feed(WireBytes().option(1, WireBytes().text(name)).bytes)
        if count == 0 { #expect(run.sent.count == 10) } else { #expect(run.sent.isEmpty) }
    }

    @Test("a name that is not UTF-8 is refused")
    func invalidUTF8() {
        var run = HandshakeRun.inOptions()
        run.feed(WireBytes().option(7, WireBytes().u32(2).u8(0xff).u8(0xfe).u16(0)).bytes)
        #expect(replyTypes(run.sent) == [0x8000_0003])
    }

    @Test("every length field at its edges is an error and no more", arguments: [UInt32(6), 7, 9, 10])
    func lengthFields(option: UInt32) {
        for edge in [UInt32(0), 1, 2, 3, 4, 5, 0x7f, 0xffff, 0x10000, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff] {
            for payload in [
                WireBytes().u32(edge), WireBytes().u32(edge).text("disk").u16(0), WireBytes().string("disk").u32(edge),
                WireBytes().string("disk").u16(UInt16(truncatingIfNeeded: edge)), WireBytes().string("disk").u32(1).u32(edge),
                WireBytes().string("disk").u32(1).u32(edge).text("base:allocation"), WireBytes().string("disk").u32(edge).string("base:allocation"),
            ] {
                var run = HandshakeRun.inOptions()
                run.feed(WireBytes().option(8).option(option, payload).bytes)
                if case .close = run.verdict { Issue.record("closed by \(payload.bytes)") }
                #expect(replyTypes(run.sent).count >= 2)
            }
        }
    }

    @Test("an option that says it is 4 GiB long ends the negotiation before anything is skipped")
    func endlessOption() {
        for option in [UInt32(3), 7, 99] {
            var run = HandshakeRun.inOptions()
            run.feed(WireBytes().u64(0x4948_4156_454f_5054).u32(option).u32(0xffff_ffff).bytes)
            guard case .close = run.verdict else { Issue.record("\(run.verdict)"); return }
        }
    }

    @Test("negotiation is bounded in options and bytes")
    func boundedWork() {
        var run = HandshakeRun.inOptions()
        let one = WireBytes().option(99).bytes
        for _ in 0..<NBDLimit.optionCount { run.feed(one) }
        #expect(run.verdict == .needsMore)
        run.feed(one)
        #expect(run.verdict == .close("negotiation takes too long"))

        run = HandshakeRun.inOptions()
        let large = WireBytes().option(99, WireBytes().zeroes(1 << 20)).bytes
        for _ in 0..<7 { run.feed(large) }
        #expect(run.verdict == .needsMore)
        run.feed(large)
        #expect(run.verdict == .close("negotiation takes too long"))
    }

    @Test("a wrong option magic closes the connection")
    func wrongMagic() {
        var run = HandshakeRun.inOptions()
        run.feed(WireBytes().u64(0x4948_4156_454f_5055).u32(3).u32(0).bytes)
        guard case .close = run.verdict else { Issue.record("\(run.verdict)"); return }
        #expect(run.sent.isEmpty)
    }

    /// A long conversation that ends in transmission.
    private let conversation = WireBytes().u32(3).option(5).option(8).option(3).option(77, WireBytes().zeroes(40))
        .option(9, WireBytes().string("disk").u32(0)).option(10, WireBytes().string("disk").u32(1).string("base:allocation"))
        .option(6, WireBytes().string("x").u16(0)).option(7, WireBytes().string("disk").u16(1).u16(3)).bytes

    @Test("how the bytes are cut into pieces changes nothing", arguments: [1, 2, 3, 7, 16, 17, 64])
    func pieces(size: Int) {
        var whole = HandshakeRun()
        whole.feed(conversation)
        var cut = HandshakeRun()
        cut.feed(conversation, pieces: size)
        #expect(whole.sent == cut.sent)
        #expect(whole.verdict == cut.verdict)
        guard case .transmission = whole.verdict else { Issue.record("\(whole.verdict)"); return }
    }

    @Test("a client that leaves at any byte leaves the server waiting, not broken")
    func abortAtEveryByte() {
        for count in 0..<conversation.count {
            var run = HandshakeRun()
            run.feed(Array(conversation.prefix(count)), pieces: 5)
            #expect(run.verdict == .needsMore)
        }
    }

    @Test("any byte of a conversation may be wrong")
    func corruptEveryByte() {
        for index in conversation.indices {
            for value in [UInt8(0), 0x7f, 0x80, 0xff, conversation[index] ^ 1] {
                var bytes = conversation
                bytes[index] = value
                var run = HandshakeRun()
                run.feed(bytes + [UInt8](repeating: 0, count: 64))
                #expect(run.sent.count < 4096)
            }
        }
    }

    @Test("garbage never traps and never makes the server say much", arguments: 0..<40)
    func garbage(seed: Int) {
        var random = SeededGenerator(seed: UInt64(seed))
        for _ in 0..<100 {
            var bytes = WireBytes().u32(3).bytes
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                var payload = (0..<Int.random(in: 0...64, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
                if Bool.random(using: &random) { payload = WireBytes().u32(UInt32.random(in: 0...8, using: &random)).bytes + payload }
                bytes += WireBytes().option(UInt32.random(in: 0...12, using: &random), WireBytes(bytes: payload)).bytes
            }
            var run = HandshakeRun()
            run.feed(bytes, pieces: Int.random(in: 1...40, using: &random))
            #expect(run.sent.count < 16384, "seed \(seed)")
        }
    }

    private func replies(_ sent: [UInt8]) -> [(type: UInt32, payload: [UInt8])] {
        var result: [(UInt32, [UInt8])] = []
        var rest = sent[...]
        while rest.count >= 20 {
            let header = Array(rest.prefix(20))
            func number(_ from: Int) -> UInt32 { header[from..<(from + 4)].reduce(0) { $0 << 8 | UInt32($1) } }
            result.append((number(12), Array(rest.dropFirst(20).prefix(Int(number(16))))))
            rest = rest.dropFirst(20 + Int(number(16)))
        }
        #expect(rest.isEmpty, "the server sends whole replies")
        return result
    }
    private func replyTypes(_ sent: [UInt8]) -> [UInt32] { replies(sent).map(\.type) }
    private func replyPayloads(_ sent: [UInt8]) -> [[UInt8]] { replies(sent).map(\.payload) }
}
