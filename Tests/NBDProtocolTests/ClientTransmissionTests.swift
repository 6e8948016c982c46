import NBDProtocol
import StrataBase
import StrataTesting
import Testing

@Suite("NBD replies, client side")
struct ClientTransmissionTests {
    static func session(_ style: NBDSession.ReplyStyle) -> NBDClientSession {
        NBDClientSession(byteCount: 1 << 30, flags: [.hasFlags], blockSizes: nil, replyStyle: style, metaContextID: 3)
    }

    /// Drives a transmission as a connection does, with one block of memory per slot.
    struct Run {
        var transmission: ClientTransmission
        var memory: [Int: [UInt8]] = [:]
        var extents: [Int: [UInt32]] = [:]
        var finished: [Int: ClientTransmission.Failure?] = [:]
        var error: DecodingFailure?
        private var pending: [UInt8] = []
        private var target: (slot: Int, at: Int, count: Int)?

        init(_ style: NBDSession.ReplyStyle) { transmission = ClientTransmission(ClientTransmissionTests.session(style)) }

        mutating func begin(_ command: NBDCommand, offset: Int = 0, count: Int = 0) -> (slot: Int, cookie: UInt64) {
            let (slot, frame) = transmission.begin(command, offset: UInt64(offset), byteCount: UInt64(count))
            memory[slot] = [UInt8](repeating: 0xee, count: count)
            return (slot, frame.cookie)
        }

        mutating func feed(_ bytes: [UInt8], pieces: Int = .max) {
            var rest = bytes[...]
            while !rest.isEmpty, error == nil {
                pending += rest.prefix(pieces)
                rest = rest.dropFirst(pieces)
                take()
            }
        }

        private mutating func take() {
            while error == nil {
                if let (slot, at, count) = target {
                    let step = min(count, pending.count)
                    memory[slot]?.replaceSubrange(at..<at + step, with: pending[..<step])
                    pending.removeFirst(step)
                    target = step == count ? nil : (slot, at + step, count - step)
                    if target != nil { return }
                }
                do throws(DecodingFailure) {
                    var state = transmission
                    let (consumed, event) = try state.consume(pending.span.bytes)
                    transmission = state
                    pending.removeFirst(consumed)
                    switch event {
                    case .needsMore(let count):
                        #expect(count > pending.count, "waiting for what is there")
                        return
                    case .nothing: break
                    case .data(let slot, let at, let count): target = (slot, at, count)
                    case .zeroes(let slot, let at, let count): memory[slot]?.replaceSubrange(at..<at + count, with: repeatElement(0, count: count))
                    case .extent(let slot, let count, let flags): extents[slot] = [UInt32(count), flags]
                    case .finished(let slot, let failure): finished[slot] = .some(failure)
                    }
                } catch { self.error = error }
            }
        }
    }

    /// One chunk as a server sends it.
    static func chunk(_ style: NBDSession.ReplyStyle, type: UInt16, done: Bool, cookie: UInt64, offset: Int, _ payload: WireBytes) -> WireBytes {
        if style == .extended {
            return WireBytes().u32(0x6e8a_278c).u16(done ? 1 : 0).u16(type).u64(cookie).u64(UInt64(offset)).u64(UInt64(payload.bytes.count)).adding(payload.bytes)
        }
        return WireBytes().u32(0x668e_33ef).u16(done ? 1 : 0).u16(type).u64(cookie).u32(UInt32(payload.bytes.count)).adding(payload.bytes)
    }

    static func simple(_ cookie: UInt64, error: UInt32 = 0) -> WireBytes { WireBytes().u32(0x6744_6698).u32(error).u64(cookie) }

    /// Replies to several requests, their chunks in any order, as a model knows them.
    static func conversation(_ style: NBDSession.ReplyStyle, seed: UInt64, _ run: inout Run) -> (bytes: [UInt8], expected: [Int: [UInt8]], failures: [Int: UInt32]) {
        var random = SeededGenerator(seed: seed)
        var streams: [[WireBytes]] = []
        var expected: [Int: [UInt8]] = [:]
        var failures: [Int: UInt32] = [:]
        for _ in 0..<Int.random(in: 1...6, using: &random) {
            let offset = Int.random(in: 0...1 << 20, using: &random)
            let count = Int.random(in: 1...300, using: &random)
            switch Int.random(in: 0..<4, using: &random) {
            case 0:
                let (slot, cookie) = run.begin(.write, offset: offset, count: count)
                let number: UInt32 = Bool.random(using: &random) ? 0 : 28
                if number != 0 { failures[slot] = number }
                if style == .extended {
                    streams.append([number == 0 ? chunk(style, type: 0, done: true, cookie: cookie, offset: offset, WireBytes())
                        : chunk(style, type: 0x8001, done: true, cookie: cookie, offset: offset, WireBytes().u32(number).u16(2).text("no"))])
                } else {
                    streams.append([simple(cookie, error: number)])
                }
            case 1 where style != .simple:
                let (_, cookie) = run.begin(.blockStatus, offset: offset, count: count)
                let payload = style == .extended ? WireBytes().u32(3).u32(1).u64(UInt64(count)).u64(2) : WireBytes().u32(3).u32(UInt32(count)).u32(2)
                streams.append([chunk(style, type: style == .extended ? 6 : 5, done: true, cookie: cookie, offset: offset, payload)])
            default:
                let (slot, cookie) = run.begin(.read, offset: offset, count: count)
                var content = (0..<count).map { _ in UInt8.random(in: 1...255, using: &random) }
                if style == .simple {
                    streams.append([simple(cookie).adding(content)])
                } else {
                    var cuts = (0..<Int.random(in: 0...5, using: &random)).map { _ in Int.random(in: 0...count, using: &random) } + [0, count]
                    cuts = Array(Set(cuts)).sorted()
                    var pieces: [WireBytes] = []
                    let ends = Bool.random(using: &random)
                    for (from, to) in zip(cuts, cuts.dropFirst()).shuffled(using: &random) {
                        let last = ends && pieces.count == cuts.count - 2
                        if Int.random(in: 0..<3, using: &random) == 0 {
                            for index in from..<to { content[index] = 0 }
                            pieces.append(chunk(style, type: 2, done: last, cookie: cookie, offset: offset, WireBytes().u64(UInt64(offset + from)).u32(UInt32(to - from))))
                        } else {
                            pieces.append(chunk(style, type: 1, done: last, cookie: cookie, offset: offset, WireBytes().u64(UInt64(offset + from)).adding(Array(content[from..<to]))))
                        }
                    }
                    if !ends { pieces.append(chunk(style, type: 0, done: true, cookie: cookie, offset: offset, WireBytes())) }
                    streams.append(pieces)
                }
                expected[slot] = content
            }
        }
        var bytes: [UInt8] = []
        while let index = streams.indices.filter({ !streams[$0].isEmpty }).randomElement(using: &random) { bytes += streams[index].removeFirst().bytes }
        return (bytes, expected, failures)
    }

    @Test("replies in any order and in any pieces put every byte where it belongs", arguments: [NBDSession.ReplyStyle.simple, .structured, .extended])
    func conversations(style: NBDSession.ReplyStyle) {
        for seed in 0..<400 as Range<UInt64> {
            var run = Run(style)
            let (bytes, expected, failures) = Self.conversation(style, seed: seed, &run)
            let begun = run.transmission.requestsInFlight
            run.feed(bytes, pieces: [1, 3, 16, 64, .max][Int(seed % 5)])
            #expect(run.error == nil, "seed \(seed): \(String(describing: run.error))")
            #expect(run.finished.count == begun && run.transmission.requestsInFlight == 0, "seed \(seed)")
            for (slot, content) in expected { #expect(run.memory[slot] == content, "seed \(seed) slot \(slot)") }
            for (slot, number) in failures { #expect(run.finished[slot]??.errorNumber == number, "seed \(seed)") }
            for (_, extent) in run.extents { #expect(extent[1] == 2) }
        }
    }

    @Test("damaged replies are errors or waits or other valid replies, never a trap or a byte outside", arguments: [NBDSession.ReplyStyle.simple, .structured, .extended])
    func damage(style: NBDSession.ReplyStyle) {
        var random = SeededGenerator(seed: 5)
        for seed in 0..<600 as Range<UInt64> {
            var run = Run(style)
            var bytes = Self.conversation(style, seed: seed, &run).bytes
            for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
                let index = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0..<4, using: &random) {
                case 0: bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &random)
                case 1: bytes.remove(at: index)
                case 2: bytes.insert(UInt8.random(in: 0...255, using: &random), at: index)
                default: bytes.removeLast(bytes.count - index)
                }
            }
            let sizes = run.memory.mapValues(\.count)
            run.feed(bytes, pieces: 50)
            #expect(run.memory.mapValues(\.count) == sizes, "seed \(seed)")
        }
    }

    @Test("what a server may not say")
    func lies() {
        let data = { (cookie: UInt64, offset: Int, text: String, done: Bool) in
            Self.chunk(.structured, type: 1, done: done, cookie: cookie, offset: 0, WireBytes().u64(UInt64(offset)).text(text))
        }
        let cases: [(String, (UInt64) -> WireBytes)] = [
            ("a reply to nothing", { Self.simple($0 + 1) }),
            ("a simple reply to a read among structured ones", { Self.simple($0) }),
            ("data before the range", { data($0, 99, "abcd", true) }),
            ("data behind the range", { data($0, 108, "abc", true) }),
            ("data twice", { data($0, 100, "abcd", false).adding(data($0, 103, "abcd", false).bytes) }),
            ("data twice, out of order", { data($0, 104, "abcd", false).adding(data($0, 102, "abcd", false).bytes) }),
            ("parts missing", { data($0, 100, "abcd", true) }),
            ("an end with nothing", { Self.chunk(.structured, type: 0, done: true, cookie: $0, offset: 0, WireBytes()) }),
            ("no end with nothing", { Self.chunk(.structured, type: 0, done: false, cookie: $0, offset: 0, WireBytes()) }),
            ("a hole of no bytes", { Self.chunk(.structured, type: 2, done: false, cookie: $0, offset: 0, WireBytes().u64(100).u32(0)) }),
            ("block status for a read", { Self.chunk(.structured, type: 5, done: true, cookie: $0, offset: 0, WireBytes().u32(3).u32(4).u32(0)) }),
            ("an unknown type", { Self.chunk(.structured, type: 77, done: true, cookie: $0, offset: 0, WireBytes()) }),
            ("an error of nothing", { Self.chunk(.structured, type: 0x8001, done: true, cookie: $0, offset: 0, WireBytes().u32(0).u16(0)) }),
            ("an error text longer than its chunk", { Self.chunk(.structured, type: 0x8001, done: true, cookie: $0, offset: 0, WireBytes().u32(5).u16(9).text("x")) }),
            ("an extended reply", { Self.chunk(.extended, type: 0, done: true, cookie: $0, offset: 100, WireBytes()) }),
            ("a chunk without end", { WireBytes().u32(0x668e_33ef).u16(0).u16(2).u64($0).u32(0xffff_ffff) }),
            ("a data chunk without end", { WireBytes().u32(0x668e_33ef).u16(0).u16(1).u64($0).u32(0xffff_ffff) }),
        ]
        for (name, bytes) in cases {
            var run = Run(.structured)
            let (_, cookie) = run.begin(.read, offset: 100, count: 10)
            run.feed(bytes(cookie).bytes)
            #expect(run.error != nil, "\(name)")
        }
        for (name, payload) in [
            ("another context", WireBytes().u32(4).u32(10).u32(0)), ("no extent", WireBytes().u32(3)), ("half an extent", WireBytes().u32(3).u32(10)),
            ("an extent of no bytes", WireBytes().u32(3).u32(0).u32(0)),
        ] {
            var run = Run(.structured)
            let (_, cookie) = run.begin(.blockStatus, offset: 100, count: 10)
            run.feed(Self.chunk(.structured, type: 5, done: true, cookie: cookie, offset: 0, payload).bytes)
            #expect(run.error != nil, "\(name)")
        }
    }

    @Test("an old cookie of a slot in use again is found out")
    func reuse() {
        var run = Run(.simple)
        let first = run.begin(.flush)
        run.feed(Self.simple(first.cookie).bytes)
        let second = run.begin(.flush)
        #expect(second.slot == first.slot)
        run.feed(Self.simple(first.cookie).bytes)
        #expect(run.error != nil)
    }

    @Test("an error in the middle of data fails the request and nothing else")
    func errorWithData() {
        var run = Run(.structured)
        let (slot, cookie) = run.begin(.read, offset: 0, count: 8)
        run.feed(Self.chunk(.structured, type: 1, done: false, cookie: cookie, offset: 0, WireBytes().u64(0).text("abcd")).bytes)
        run.feed(Self.chunk(.structured, type: 0x8002, done: false, cookie: cookie, offset: 0, WireBytes().u32(5).u16(3).text("bad").u64(4)).bytes)
        run.feed(Self.chunk(.structured, type: 0, done: true, cookie: cookie, offset: 0, WireBytes()).bytes)
        #expect(run.error == nil)
        #expect(run.finished[slot]??.errorNumber == 5 && run.finished[slot]??.text == "bad")
    }
}
