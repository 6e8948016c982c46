import NBDProtocol
import StrataBase
import Testing

/// Every kind of reply, cut and changed at every byte.
@Suite("NBD replies, client side, byte by byte")
struct ReplyDamageTests {
    private typealias Replies = ClientTransmissionTests

    /// One kind of reply: the request that it answers and what a server sends for the cookie.
    struct Kind: Sendable, CustomTestStringConvertible {
        var name: String
        var style: NBDSession.ReplyStyle
        var command: NBDCommand
        var bytes: @Sendable (UInt64) -> [UInt8]
        var testDescription: String { "\(name), \(style)" }
    }

    private static let offset = 1 << 16, count = 24

    static let kinds: [Kind] = {
        var kinds = [
            Kind(name: "success", style: .simple, command: .write) { Replies.simple($0).bytes },
            Kind(name: "an error", style: .simple, command: .read) { Replies.simple($0, error: 5).bytes },
            Kind(name: "data", style: .simple, command: .read) { Replies.simple($0).adding([UInt8](repeating: 7, count: count)).bytes },
            Kind(name: "simple success", style: .structured, command: .flush) { Replies.simple($0).bytes },
        ]
        for style in [NBDSession.ReplyStyle.structured, .extended] {
            @Sendable func chunk(_ type: UInt16, done: Bool = true, _ cookie: UInt64, _ payload: WireBytes = WireBytes()) -> [UInt8] {
                Replies.chunk(style, type: type, done: done, cookie: cookie, offset: offset, payload).bytes
            }
            let at = UInt64(offset)
            kinds += [
                Kind(name: "nothing", style: style, command: .trim) { chunk(0, $0) },
                Kind(name: "data", style: style, command: .read) { chunk(1, $0, WireBytes().u64(at).zeroes(count)) },
                Kind(name: "a hole", style: style, command: .read) { chunk(2, $0, WireBytes().u64(at).u32(UInt32(count))) },
                Kind(name: "data, a hole and an end", style: style, command: .read) {
                    chunk(1, done: false, $0, WireBytes().u64(at + 8).zeroes(16)) + chunk(2, done: false, $0, WireBytes().u64(at).u32(8)) + chunk(0, $0)
                },
                Kind(name: "an extent", style: style, command: .blockStatus) {
                    style == .extended ? chunk(6, $0, WireBytes().u32(3).u32(1).u64(24).u64(3)) : chunk(5, $0, WireBytes().u32(3).u32(24).u32(3))
                },
                Kind(name: "several extents", style: style, command: .blockStatus) {
                    style == .extended
                        ? chunk(6, $0, WireBytes().u32(3).u32(2).u64(8).u64(3).u64(16).u64(0)) : chunk(5, $0, WireBytes().u32(3).u32(8).u32(3).u32(16).u32(0))
                },
                Kind(name: "an error", style: style, command: .write) { chunk(0x8001, $0, WireBytes().u32(28).u16(2).text("no")) },
                Kind(name: "an error at a place", style: style, command: .read) { chunk(0x8002, $0, WireBytes().u32(5).u16(2).text("no").u64(at + 3)) },
                Kind(name: "an error of a kind to come", style: style, command: .read) { chunk(0x8077, $0, WireBytes().u32(5).u16(0).zeroes(9)) },
            ]
        }
        return kinds
    }()

    private func begin(_ kind: Kind) -> (Replies.Run, slot: Int, bytes: [UInt8]) {
        var run = Replies.Run(kind.style)
        let (slot, cookie) = run.begin(kind.command, offset: Self.offset, count: Self.count)
        return (run, slot, kind.bytes(cookie))
    }

    @Test("whole, the request is over; cut off at any byte, it waits", arguments: kinds)
    func cut(kind: Kind) {
        let (fresh, slot, bytes) = begin(kind)
        for pieces in [1, 7, Int.max] {
            var run = fresh
            run.feed(bytes, pieces: pieces)
            #expect(run.error == nil && run.finished.keys.contains(slot), "\(run)")
        }
        for end in 0..<bytes.count {
            var run = fresh
            run.feed(Array(bytes[..<end]))
            #expect(run.error == nil && run.finished.isEmpty, "cut at \(end): \(run)")
        }
    }

    @Test("with any byte changed it is an error, a wait or another answer, and no byte goes elsewhere", arguments: kinds)
    func corrupt(kind: Kind) {
        let (fresh, slot, bytes) = begin(kind)
        for index in bytes.indices {
            for flip in [UInt8(1), 2, 0x80, 0x7f, 0xff] {
                var damaged = bytes
                damaged[index] ^= flip
                var run = fresh
                // Further bytes, so that a length that has grown is not just a wait.
                run.feed(damaged + [UInt8](repeating: 0xab, count: 64), pieces: 11)
                #expect(run.memory.mapValues(\.count) == [slot: Self.count])
                // A magic and a cookie leave no choice.
                let isCookie = index >= 8 && index < 16
                if index < 4 || isCookie { #expect(run.error != nil && run.finished.isEmpty, "byte \(index) ^ \(flip)") }
            }
        }
    }

    @Test("with any byte lost or said twice it is an error, a wait or another answer, and no byte goes elsewhere", arguments: kinds)
    func lost(kind: Kind) {
        let (fresh, slot, bytes) = begin(kind)
        for index in bytes.indices {
            for isLost in [true, false] {
                var damaged = bytes
                if isLost { damaged.remove(at: index) } else { damaged.insert(bytes[index], at: index) }
                var run = fresh
                run.feed(damaged + [UInt8](repeating: 0xab, count: 64), pieces: 11)
                #expect(run.memory.mapValues(\.count) == [slot: Self.count])
                // Were the reply taken for a whole one, what follows would be none: it is never a silent success.
                #expect(run.error != nil || run.finished.isEmpty, "\(isLost ? "without byte" : "twice byte") \(index): \(run)")
            }
        }
    }

    @Test("chunks of one reply in another order are that reply, or an error when the last one comes early", arguments: [NBDSession.ReplyStyle.structured, .extended])
    func chunkOrder(style: NBDSession.ReplyStyle) {
        for order in [[0, 1, 2], [1, 0, 2], [0, 2, 1], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            var run = Replies.Run(style)
            let (slot, cookie) = run.begin(.read, offset: Self.offset, count: Self.count)
            let chunks = [
                Replies.chunk(style, type: 1, done: false, cookie: cookie, offset: Self.offset, WireBytes().u64(UInt64(Self.offset + 8)).adding([UInt8](repeating: 5, count: 16))),
                Replies.chunk(style, type: 2, done: false, cookie: cookie, offset: Self.offset, WireBytes().u64(UInt64(Self.offset)).u32(8)),
                Replies.chunk(style, type: 0, done: true, cookie: cookie, offset: Self.offset, WireBytes()),
            ]
            run.feed(order.flatMap { chunks[$0].bytes }, pieces: 9)
            if order[2] == 2 {
                #expect(run.error == nil && run.finished.keys.contains(slot) && run.memory[slot] == [UInt8](repeating: 0, count: 8) + [UInt8](repeating: 5, count: 16), "\(order)")
            } else {
                #expect(run.error != nil && run.finished.isEmpty, "\(order): \(run)")
            }
        }
    }

    @Test("block status that says more than was asked, at the edges of its fields, is cut to the request")
    func enormousExtents() {
        for (style, lengths) in [(NBDSession.ReplyStyle.structured, [25, UInt64(UInt32.max)]), (.extended, [25, UInt64(UInt32.max), 1 << 63, .max])] {
            for length in lengths {
                var run = Replies.Run(style)
                let (slot, cookie) = run.begin(.blockStatus, offset: Self.offset, count: Self.count)
                let payload = style == .extended ? WireBytes().u32(3).u32(1).u64(length).u64(.max) : WireBytes().u32(3).u32(UInt32(length)).u32(.max)
                run.feed(Replies.chunk(style, type: style == .extended ? 6 : 5, done: true, cookie: cookie, offset: Self.offset, payload).bytes)
                #expect(run.error == nil && run.extents[slot]?[0] == UInt32(Self.count), "\(run)")
            }
        }
    }
}
