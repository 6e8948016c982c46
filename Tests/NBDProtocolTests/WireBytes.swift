import NBDProtocol

/// Big-endian bytes put together by hand, independent of the encoders under test.
struct WireBytes {
    var bytes: [UInt8] = []

    func u8(_ value: UInt8) -> Self { adding([value]) }
    func u16(_ value: UInt16) -> Self { adding([UInt8(value >> 8), UInt8(value & 0xff)]) }
    func u32(_ value: UInt32) -> Self { u16(UInt16(value >> 16)).u16(UInt16(value & 0xffff)) }
    func u64(_ value: UInt64) -> Self { u32(UInt32(value >> 32)).u32(UInt32(value & 0xffff_ffff)) }
    func text(_ value: String) -> Self { adding(Array(value.utf8)) }
    /// A 32-bit length and the text.
    func string(_ value: String) -> Self { u32(UInt32(value.utf8.count)).text(value) }
    func zeroes(_ count: Int) -> Self { adding([UInt8](repeating: 0, count: count)) }
    func adding(_ more: [UInt8]) -> Self { Self(bytes: bytes + more) }

    /// What a client sends for an option.
    func option(_ number: UInt32, _ payload: WireBytes = WireBytes()) -> Self {
        u64(0x4948_4156_454f_5054).u32(number).u32(UInt32(payload.bytes.count)).adding(payload.bytes)
    }

    /// What a server answers to an option.
    func optionReply(_ option: UInt32, _ type: UInt32, _ payload: WireBytes = WireBytes()) -> Self {
        u64(0x0003_e889_0455_65a9).u32(option).u32(type).u32(UInt32(payload.bytes.count)).adding(payload.bytes)
    }
}

/// Two exports; "" means the first.
struct TwoExports: ExportDirectory {
    var first = ExportDescription(name: "disk", description: "the first", byteCount: 1 << 20, flags: [.sendFlush, .sendFUA])
    var second = ExportDescription(name: "other", byteCount: 512, flags: [.readOnly], blockSizes: NBDBlockSizes(minimum: 4096))

    func export(named name: String) -> ExportDescription? {
        name == "disk" || name.isEmpty ? first : name == "other" ? second : nil
    }
    var listing: [(name: String, description: String?)] { [(first.name, first.description), (second.name, second.description)] }
}

/// Feeds a handshake and collects what it says.
struct HandshakeRun {
    var handshake = ServerHandshake()
    var exports = TwoExports()
    var pending: [UInt8] = []
    var sent: [UInt8] = []
    var verdict = ServerHandshake.Verdict.needsMore
    var longestPending = 0

    /// - Parameter pieces: how many bytes arrive at a time.
    mutating func feed(_ bytes: [UInt8], pieces: Int = .max) {
        var rest = bytes[...]
        while !rest.isEmpty, verdict == .needsMore {
            pending += rest.prefix(pieces)
            rest = rest.dropFirst(pieces)
            while verdict == .needsMore {
                var output = HandshakeOutput()
                var state = handshake
                let (consumed, next) = state.consume(pending.span.bytes, exports: exports, &output)
                handshake = state
                sent += output.bytes
                pending.removeFirst(consumed)
                verdict = next
                if consumed == 0 { break }
            }
            longestPending = max(longestPending, pending.count)
        }
    }

    /// Past the greeting, with fixed newstyle and no zeroes.
    static func inOptions() -> HandshakeRun {
        var run = HandshakeRun()
        run.feed(WireBytes().u32(3).bytes)
        return run
    }
}
