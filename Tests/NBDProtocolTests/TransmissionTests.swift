import NBDProtocol
import StrataBase
import Testing

@Suite("NBD transmission frames")
struct TransmissionTests {
    private func encoded(_ count: Int, _ fill: (inout MutableRawSpan) -> Void) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xaa, count: count)
        var span = bytes.mutableSpan
        var raw = span.mutableBytes
        fill(&raw)
        return bytes
    }

    @Test("a request decodes field by field and encodes back")
    func request() {
        let bytes = WireBytes().u32(0x2560_9513).u16(5).u16(6).u64(0x0102_0304_0506_0708).u64(0xfedc_ba98_7654_3210).u32(0x8000_0001).bytes
        let frame = RequestFrame(decoding: bytes.span.bytes)
        #expect(frame == RequestFrame(
            flags: [.forceUnitAccess, .dontFragment], command: .writeZeroes, cookie: 0x0102_0304_0506_0708, offset: 0xfedc_ba98_7654_3210,
            byteCount: 0x8000_0001))
        #expect(encoded(28) { frame?.encode(into: &$0) } == bytes)
        for index in 0..<4 {
            var wrong = bytes
            wrong[index] ^= 0x10
            #expect(RequestFrame(decoding: wrong.span.bytes) == nil)
        }
    }

    @Test("simple replies")
    func simpleReply() {
        #expect(encoded(16) { SimpleReply.encode(cookie: 0x1122, into: &$0) } == WireBytes().u32(0x6744_6698).u32(0).u64(0x1122).bytes)
        #expect(encoded(16) { SimpleReply.encode(cookie: .max, error: .noSpace, into: &$0) }
            == WireBytes().u32(0x6744_6698).u32(28).u64(.max).bytes)
    }

    @Test("data, error and empty chunks in each format")
    func chunks() {
        let reference = ReplyFormat.Reference(cookie: 7, offset: 1 << 39)
        func data(_ format: ReplyFormat) -> [UInt8] {
            encoded(format.dataHeaderSize) { format.encodeDataHeader(flags: .done, reference, offset: 1 << 40, byteCount: 4096, into: &$0) }
        }
        func error(_ format: ReplyFormat) -> [UInt8] {
            encoded(format.errorSize("no")) { format.encodeError(.io, "no", reference, into: &$0) }
        }
        #expect(data(.simple) == WireBytes().u32(0x6744_6698).u32(0).u64(7).bytes)
        #expect(data(.structured) == WireBytes().u32(0x668e_33ef).u16(1).u16(1).u64(7).u32(4104).u64(1 << 40).bytes)
        #expect(data(.extended) == WireBytes().u32(0x6e8a_278c).u16(1).u16(1).u64(7).u64(1 << 39).u64(4104).u64(1 << 40).bytes)
        #expect(error(.simple) == WireBytes().u32(0x6744_6698).u32(5).u64(7).bytes)
        #expect(error(.structured) == WireBytes().u32(0x668e_33ef).u16(1).u16(0x8001).u64(7).u32(8).u32(5).u16(2).text("no").bytes)
        #expect(error(.extended) == WireBytes().u32(0x6e8a_278c).u16(1).u16(0x8001).u64(7).u64(1 << 39).u64(8).u32(5).u16(2).text("no").bytes)
        func hole(_ format: ReplyFormat) -> [UInt8] {
            encoded(format.headerSize + 12) { format.encodeHole(flags: [], reference, offset: 1 << 40, byteCount: 65536, into: &$0) }
        }
        #expect(hole(.structured) == WireBytes().u32(0x668e_33ef).u16(0).u16(2).u64(7).u32(12).u64(1 << 40).u32(65536).bytes)
        #expect(hole(.extended) == WireBytes().u32(0x6e8a_278c).u16(0).u16(2).u64(7).u64(1 << 39).u64(12).u64(1 << 40).u32(65536).bytes)
        #expect(encoded(32) { ReplyFormat.extended.encodeHeader(.none, flags: .done, reference, payloadByteCount: 0, into: &$0) }
            == WireBytes().u32(0x6e8a_278c).u16(1).u16(0).u64(7).u64(1 << 39).u64(0).bytes)
    }

    @Test("an extended request has a 64-bit length and another magic")
    func extendedRequest() {
        let bytes = WireBytes().u32(0x21e4_1c71).u16(0x20).u16(1).u64(9).u64(512).u64(1 << 33).bytes
        let frame = RequestFrame(decoding: bytes.span.bytes, isExtended: true)
        #expect(frame == RequestFrame(flags: .payloadLength, command: .write, cookie: 9, offset: 512, byteCount: 1 << 33))
        #expect(encoded(32) { frame?.encodeExtended(into: &$0) } == bytes)
        #expect(RequestFrame(decoding: bytes.span.bytes) == nil)
        let trim = RequestFrame(flags: .payloadLength, command: .trim, cookie: 1, offset: 0, byteCount: 10)
        #expect(trim.payloadByteCount(isExtended: true) == 10 && trim.payloadByteCount(isExtended: false) == 0)
    }

    @Test("extents in both widths, with the context's number")
    func extentPayload() {
        var extents = BlockStatusExtents(onlyOne: false, isExtended: true)
        #expect(fits(1 << 34, [.hole, .zero], &extents) && fits(512, [], &extents))
        let context = MetaContext(.allocationDepth, identifier: 1)
        #expect(encoded(extents.payloadByteCount(.extended)) { extents.encodePayload(context, .extended, into: &$0, at: 0) }
            == WireBytes().u32(1).u32(2).u64(1 << 34).u64(3).u64(512).u64(0).bytes)
        var short = BlockStatusExtents(onlyOne: false)
        #expect(fits(512, [.hole, .zero], &short))
        #expect(encoded(short.payloadByteCount(.structured)) { short.encodePayload(context, .structured, into: &$0, at: 0) } == WireBytes().u32(1).u32(512).u32(3).bytes)
    }

    @Test("a filter of contexts is a length and numbers, and nothing else")
    func filter() throws {
        let filter = try BlockStatusFilter(decoding: WireBytes().u64(1 << 40).u32(1).u32(0).bytes.span.bytes)
        #expect(filter.byteCount == 1 << 40 && filter.identifiers == [1, 0])
        for bytes in [WireBytes(), WireBytes().u32(1), WireBytes().u64(1).u16(0)] {
            #expect(throws: DecodingFailure.self) { try BlockStatusFilter(decoding: bytes.bytes.span.bytes) }
        }
    }

    @Test("an error text longer than the protocol's strings is cut between characters")
    func longErrorText() {
        let text = String(repeating: "x", count: 4095) + "äöü"
        let format = ReplyFormat.structured
        let bytes = encoded(format.errorSize(text)) { format.encodeError(.io, text, ReplyFormat.Reference(cookie: 0, offset: 0), into: &$0) }
        #expect(bytes.count == 26 + 4095)
        #expect(bytes[24...25] == [0x0f, 0xff])
    }

    private func fits(_ byteCount: Int, _ state: NBDAllocationState, _ extents: inout BlockStatusExtents) -> Bool {
        extents.append(byteCount: byteCount, state: state)
    }

    @Test("neighbouring extents in one state are one extent")
    func extents() {
        var extents = BlockStatusExtents(onlyOne: false)
        #expect(fits(100, [], &extents))
        #expect(fits(28, [], &extents))
        #expect(fits(64, [.hole, .zero], &extents))
        #expect(extents.coveredByteCount == 192)
        #expect(encoded(extents.payloadByteCount(.structured)) { extents.encodePayload(.baseAllocation, .structured, into: &$0, at: 0) }
            == WireBytes().u32(0).u32(128).u32(0).u32(64).u32(3).bytes)
    }

    @Test("one extent only, and extents longer than 32 bits, are respected")
    func extentLimits() {
        var one = BlockStatusExtents(onlyOne: true)
        #expect(fits(10, .zero, &one))
        #expect(fits(10, .zero, &one))
        #expect(!fits(10, [], &one))
        #expect(one.extents.map(\.byteCount) == [20])

        var long = BlockStatusExtents(onlyOne: false)
        #expect(fits(1 << 33, .hole, &long))
        #expect(long.extents.map(\.byteCount) == [4_294_967_295, 4_294_967_295, 2])
        #expect(long.coveredByteCount == 1 << 33)
    }

    @Test("the number of extents is bounded")
    func extentCount() {
        var extents = BlockStatusExtents(onlyOne: false)
        for index in 0..<BlockStatusExtents.maximumCount { #expect(fits(1, index % 2 == 0 ? .zero : [], &extents)) }
        #expect(!fits(1, .hole, &extents))
        #expect(extents.coveredByteCount == BlockStatusExtents.maximumCount)
    }

    @Test("only the protocol's error numbers go out", arguments: [
        (BlockError.Code.io, NBDErrorCode.io), (.noSpace, .noSpace), (.noMemory, .noMemory), (.readOnly, .notPermitted), (.unsupported, .notSupported),
        (.invalidArgument, .invalid), (.corruptImage, .io), (.notFound, .io), (.accessDenied, .notPermitted), (.locked, .io), (.cancelled, .shutdown),
        (.system(75), .overflow), (.system(108), .shutdown), (.system(9999), .io), (.system(-1), .io), (.tooLarge, .noSpace),
    ])
    func errorNumbers(code: BlockError.Code, expected: NBDErrorCode) {
        #expect(NBDErrorCode(BlockError(code, "x")) == expected)
    }
}

@Suite("NBD request rules")
struct RequestRulesTests {
    private static let size = 1 << 20

    private func rules(_ flags: NBDTransmissionFlags, contexts: [MetaContext] = [], minimum: Int = 1) -> RequestRules {
        RequestRules(NBDSession(
            export: ExportDescription(name: "", byteCount: Self.size, flags: flags, blockSizes: NBDBlockSizes(minimum: minimum)),
            replyStyle: .structured, metaContexts: contexts))
    }
    private let everything: NBDTransmissionFlags = [
        .sendFlush, .sendFUA, .sendTrim, .sendWriteZeroes, .sendDF, .sendCache, .sendFastZero,
    ]
    private func request(_ command: NBDCommand, _ flags: NBDCommandFlags = [], at offset: UInt64 = 0, _ count: UInt64 = 512) -> RequestFrame {
        RequestFrame(flags: flags, command: command, cookie: 1, offset: offset, byteCount: count)
    }

    @Test("each command with its own flags inside the export is allowed")
    func allowed() {
        let rules = rules(everything, contexts: [.baseAllocation])
        for frame in [
            request(.read), request(.read, .dontFragment), request(.write), request(.write, .forceUnitAccess), request(.flush, [], at: .max, .max),
            request(.trim, .forceUnitAccess), request(.cache), request(.writeZeroes, [.noHole, .fastZero, .forceUnitAccess]),
            request(.blockStatus, .requestOne), request(.disconnect, NBDCommandFlags(rawValue: .max), at: .max, .max),
            request(.read, [], at: UInt64(Self.size), 0), request(.trim, [], at: 0, UInt64(Self.size)),
        ] { #expect(rules.refusal(of: frame) == nil, "\(frame)") }
    }

    @Test("flags of other commands and unknown flags are invalid")
    func flags() {
        let rules = rules(everything, contexts: [.baseAllocation])
        let known: [NBDCommand: NBDCommandFlags] = [
            .read: [.dontFragment, .forceUnitAccess], .write: .forceUnitAccess, .flush: .forceUnitAccess, .trim: .forceUnitAccess,
            .cache: .forceUnitAccess, .writeZeroes: [.forceUnitAccess, .noHole, .fastZero], .blockStatus: [.requestOne, .forceUnitAccess],
        ]
        for (command, allowed) in known {
            for bit in 0..<16 {
                let flag = NBDCommandFlags(rawValue: 1 << bit)
                #expect((rules.refusal(of: request(command, flag))?.code == .invalid) == !allowed.contains(flag), "\(command) bit \(bit)")
            }
        }
    }

    @Test("ranges that end beyond the export are refused by the right number, at every edge of 64 bits")
    func ranges() {
        let rules = rules(everything, contexts: [.baseAllocation])
        let size = UInt64(Self.size)
        let codes: [NBDCommand: NBDErrorCode] = [
            .read: .invalid, .write: .noSpace, .writeZeroes: .noSpace, .trim: .invalid, .cache: .invalid, .blockStatus: .invalid,
        ]
        for (command, code) in codes {
            for (offset, count) in [
                (size, 1), (size - 1, 2), (0, size + 1), (UInt64.max, 1), (.max, 512), (1 << 63, 512), (UInt64(Int.max), 512), (size + 1, 0),
                (UInt64.max - 511, 512),
            ] as [(UInt64, UInt64)] {
                #expect(rules.refusal(of: request(command, [], at: offset, count))?.code == code, "\(command) \(offset) \(count)")
            }
        }
    }

    @Test("what would change a read-only export is not permitted", arguments: [NBDCommand.write, .trim, .writeZeroes])
    func readOnly(command: NBDCommand) {
        #expect(rules(everything.union(.readOnly)).refusal(of: request(command))?.code == .notPermitted)
    }

    @Test("what was not offered is invalid")
    func notOffered() {
        let bare = rules([])
        for command in [NBDCommand.flush, .trim, .cache, .writeZeroes, .blockStatus, .resize, NBDCommand(rawValue: 9), NBDCommand(rawValue: .max)] {
            #expect(bare.refusal(of: request(command))?.code == .invalid, "\(command)")
        }
        #expect(bare.refusal(of: request(.read, .dontFragment))?.code == .invalid)
        #expect(bare.refusal(of: request(.writeZeroes, .fastZero))?.code == .invalid)
    }

    @Test("payloads above the limit are invalid, unaligned requests too")
    func payloadAndAlignment() {
        let big = RequestRules(NBDSession(
            export: ExportDescription(name: "", byteCount: 1 << 40, flags: everything, blockSizes: NBDBlockSizes(minimum: 512)), replyStyle: .simple))
        #expect(big.refusal(of: request(.read, [], at: 0, 32 << 20)) == nil)
        #expect(big.refusal(of: request(.read, [], at: 0, 32 << 20 + 512))?.code == .invalid)
        #expect(big.refusal(of: request(.write, [], at: 0, UInt64(UInt32.max)))?.code == .invalid)
        #expect(big.refusal(of: request(.trim, [], at: 0, UInt64(UInt32.max) & ~511)) == nil)
        #expect(big.refusal(of: request(.read, [], at: 1, 512))?.code == .invalid)
        #expect(big.refusal(of: request(.read, [], at: 512, 1))?.code == .invalid)
    }
}
