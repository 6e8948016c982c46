import NBDProtocol
import StrataBase
import Testing

/// Messages of a handshake lost, said twice and in any order, and bytes lost and said twice, on both sides.
@Suite("NBD handshakes in disorder, both sides")
struct DisorderTests {
    private typealias Client = ClientHandshakeTests

    /// Calls `body` with every order of `0..<count`.
    private static func orders(of count: Int, _ body: ([Int]) -> Void) {
        var order = Array(0..<count)
        func permute(_ first: Int) {
            if first == count { return body(order) }
            for index in first..<count {
                order.swapAt(first, index)
                permute(first + 1)
                order.swapAt(first, index)
            }
        }
        permute(0)
    }

    /// Calls `body` with `bytes` with one byte less or one byte twice, for each of them.
    private static func lostAndRepeated(_ bytes: [UInt8], _ body: (String, [UInt8]) -> Void) {
        for index in bytes.indices {
            var changed = bytes
            changed.remove(at: index)
            body("without byte \(index)", changed)
            changed = bytes
            changed.insert(bytes[index], at: index)
            body("with byte \(index) twice", changed)
        }
    }

    // MARK: Server

    /// What a client asks, in the usual order: structured replies, a list, nonsense, contexts, information, and the export itself.
    private static let options: [WireBytes] = [
        WireBytes().option(8), WireBytes().option(3), WireBytes().option(77, WireBytes().zeroes(40)),
        WireBytes().option(10, WireBytes().string("disk").u32(1).string("base:allocation")), WireBytes().option(6, WireBytes().string("other").u16(0)),
        WireBytes().option(7, WireBytes().string("disk").u16(0)),
    ]

    @Test("options may come in any order: what was agreed on before the export is chosen counts, and nothing else")
    func optionOrders() {
        Self.orders(of: Self.options.count) { order in
            var run = HandshakeRun.inOptions()
            run.feed(order.flatMap { Self.options[$0].bytes })
            guard case .transmission(let session) = run.verdict else {
                Issue.record("\(order): \(run.verdict)")
                return
            }
            func place(_ option: Int) -> Int { order.firstIndex(of: option) ?? 0 }
            let isStructured = place(0) < place(5)
            #expect(session.export.name == "disk" && (session.replyStyle == .structured) == isStructured, "\(order)")
            #expect(session.metaContexts == (place(0) < place(3) && place(3) < place(5) ? [.baseAllocation] : []), "\(order)")
            #expect(run.sent.count < 4096)
        }
    }

    @Test("any option may be lost or said twice")
    func lostOptions() {
        for index in Self.options.indices {
            var fewer = Self.options
            fewer.remove(at: index)
            var run = HandshakeRun.inOptions()
            run.feed(fewer.flatMap(\.bytes))
            if index == 5 {
                #expect(run.verdict == .needsMore)
            } else if case .transmission(let session) = run.verdict {
                #expect((session.replyStyle == .structured) == (index != 0) && session.metaContexts.isEmpty == (index == 0 || index == 3))
            } else {
                Issue.record("without option \(index): \(run.verdict)")
            }
            var more = Self.options
            more.insert(Self.options[index], at: index)
            run = HandshakeRun.inOptions()
            run.feed(more.flatMap(\.bytes))
            guard case .transmission(let session) = run.verdict else {
                Issue.record("option \(index) twice: \(run.verdict)")
                continue
            }
            #expect(session.replyStyle == .structured && session.metaContexts == [.baseAllocation], "option \(index) twice")
        }
    }

    @Test("a byte that is lost or said twice anywhere is an answer, a wait or an end")
    func lostBytesToServer() {
        Self.lostAndRepeated(WireBytes().u32(3).bytes + Self.options.flatMap(\.bytes)) { what, bytes in
            var run = HandshakeRun()
            run.feed(bytes + [UInt8](repeating: 0, count: 64))
            #expect(run.sent.count < 4096, "\(what)")
            if case .transmission(let session) = run.verdict { #expect(session.export.name == "disk", "\(what)") }
        }
    }

    // MARK: Client

    /// What a server answers, in order: extended headers, a context and its end, three pieces of information and their end.
    private static let answers: [WireBytes] = [
        WireBytes().optionReply(11, 1), WireBytes().optionReply(10, 4, WireBytes().u32(7).text("base:allocation")), WireBytes().optionReply(10, 1),
        WireBytes().optionReply(7, 3, Client.exportInfo), WireBytes().optionReply(7, 3, Client.blockSizes), WireBytes().optionReply(7, 3, WireBytes().u16(2).text("for people")),
        WireBytes().optionReply(7, 1),
    ]

    @Test("answers in any other order than that of the questions are an error; the order of information is free")
    func answerOrders() {
        Self.orders(of: Self.answers.count) { order in
            var run = Client.Run()
            run.feed(Client.greeting.bytes + order.flatMap { Self.answers[$0].bytes })
            func place(_ answer: Int) -> Int { order.firstIndex(of: answer) ?? 0 }
            // A server may not know the context. What comes behind the last answer is no part of the handshake.
            let hasContext = order[..<3] == [0, 1, 2]
            let isGood = place(3) < place(6) && (hasContext || (order[..<2] == [0, 2] && place(1) > place(6)))
            #expect((run.session != nil) == isGood && (run.error != nil) == !isGood, "\(order): \(run)")
            if let session = run.session {
                #expect(session.byteCount == 1 << 20 && (session.metaContextID == 7) == hasContext && (session.blockSizes != nil) == (place(4) < place(6)), "\(order)")
            }
        }
    }

    @Test("any answer may be lost or said twice: the client goes on, waits or gives up, and never has a size that nobody told")
    func lostAnswers() {
        for index in Self.answers.indices {
            var fewer = Self.answers
            fewer.remove(at: index)
            var run = Client.Run()
            run.feed(Client.greeting.bytes + fewer.flatMap(\.bytes))
            switch index {
            case 1: #expect(run.session?.byteCount == 1 << 20 && run.session?.metaContextID == nil, "\(run)")
            case 4, 5: #expect(run.session?.byteCount == 1 << 20 && run.session?.metaContextID == 7, "\(run)")
            case 6: #expect(run.verdict == .needsMore && run.error == nil, "\(run)")
            default: #expect(run.error?.code == .connection, "without answer \(index): \(run)")
            }
            var more = Self.answers
            more.insert(Self.answers[index], at: index)
            run = Client.Run()
            run.feed(Client.greeting.bytes + more.flatMap(\.bytes))
            // Information may be repeated, and what comes behind the end is not looked at here.
            if index >= 3 { #expect(run.session?.byteCount == 1 << 20, "\(run)") } else { #expect(run.error?.code == .connection, "answer \(index) twice: \(run)") }
        }
    }

    @Test("a byte that is lost or said twice anywhere is an error, a wait or another valid session", arguments: Client.goodServers.map(\.name))
    func lostBytesToClient(name: String) throws {
        let server = try #require(Client.goodServers.first { $0.name == name })
        Self.lostAndRepeated(server.bytes.bytes) { what, bytes in
            for pieces in [5, Int.max] {
                var run = Client.Run(.init(exportName: server.export))
                run.feed(bytes, pieces: pieces)
                if let session = run.session { #expect(session.byteCount >= 0 && session.byteCount <= Int.max - (1 << 20), "\(what)") }
            }
        }
    }

    @Test("a list with answers in any order is a list or an error; a byte lost or said twice too")
    func lists() {
        let answers: [WireBytes] = [
            WireBytes().optionReply(11, 1), WireBytes().optionReply(3, 2, WireBytes().string("disk")), WireBytes().optionReply(3, 1), WireBytes().optionReply(6, 3, Client.exportInfo),
            WireBytes().optionReply(6, 1), WireBytes().optionReply(9, 4, WireBytes().u32(0).text("base:allocation")), WireBytes().optionReply(9, 1),
        ]
        Self.orders(of: answers.count) { order in
            var run = ListHandshakeTests.Run()
            run.feed(Client.greeting.bytes + order.flatMap { answers[$0].bytes })
            let isInOrder = order == Array(answers.indices)
            #expect((run.exports?.count ?? 0) <= 1 && (!isInOrder || run.exports?.first?.metaContexts == ["base:allocation"]), "\(order): \(run)")
            // The first answer is to the first question.
            if order[0] != 0 { #expect(run.error?.code == .connection, "\(order): \(run)") }
        }
        Self.lostAndRepeated(ListHandshakeTests.server.bytes) { what, bytes in
            var run = ListHandshakeTests.Run()
            run.feed(bytes)
            #expect((run.exports?.count ?? 0) <= 2, "\(what)")
        }
    }
}
