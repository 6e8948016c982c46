/// Takes the frames of a websocket's client apart as their bytes come, and makes those of the server. Source: RFC 6455, section 5.
struct WebSocketFrames {
    private enum Opcode: UInt8 {
        case continuation = 0, text = 1, binary = 2, close = 8, ping = 9, pong = 10
        var isControl: Bool { rawValue >= 8 }
    }

    /// Codes of section 7.4.1.
    private enum CloseCode: UInt16 {
        case normal = 1000, protocolError = 1002, unsupportedData = 1003
    }

    /// What bytes have brought.
    struct Received: Hashable {
        /// The client's bytes, without the frames around them.
        var data: [UInt8] = []
        /// Frames to send back: the answer to the latest ping, and the last frame of all.
        var answers: [UInt8] = []
        var isClosed = false
    }

    private struct Header {
        var opcode: Opcode
        var isFinal: Bool
        var mask: [UInt8]
        var remaining: UInt64
        /// Bytes of the payload so far: the mask goes round.
        var taken = 0
    }

    private var headerBytes: [UInt8] = []
    private var current: Header?
    private var controlPayload: [UInt8] = []
    /// Fragments of a message have come and its last one has not.
    private var isFragmented = false
    private var isClosed = false

    /// Messages have no borders for us: their bytes are passed on as they come, so that memory is bounded whatever length a frame announces.
    mutating func receive(_ bytes: [UInt8]) -> Received {
        var result = Received()
        var position = 0
        while position < bytes.count, !isClosed {
            guard let header = current else {
                headerBytes.append(bytes[position])
                position += 1
                if let complaint = takeHeader() { close(complaint.0, complaint.1, &result) } else { finishIfComplete(&result) }
                continue
            }
            let count = Int(min(UInt64(bytes.count - position), header.remaining))
            let payload = zip(bytes[position..<position + count], header.taken...).map { $0 ^ header.mask[$1 % 4] }
            position += count
            current?.remaining -= UInt64(count)
            current?.taken += count
            if header.opcode.isControl { controlPayload += payload } else { result.data += payload }
            finishIfComplete(&result)
        }
        result.isClosed = isClosed
        return result
    }

    /// Looks whether the header is complete, and at what it says.
    /// - Returns: what is wrong.
    private mutating func takeHeader() -> (CloseCode, String)? {
        guard headerBytes.count >= 2 else { return nil }
        let isMasked = headerBytes[1] & 0x80 != 0
        let short = headerBytes[1] & 0x7f
        let lengthCount = short == 126 ? 2 : short == 127 ? 8 : 0
        guard headerBytes.count == 2 + lengthCount + (isMasked ? 4 : 0) else { return nil }
        defer { headerBytes = [] }
        if headerBytes[0] & 0x70 != 0 { return (.protocolError, "reserved bits must be 0") }
        guard let opcode = Opcode(rawValue: headerBytes[0] & 0x0f), opcode != .text, opcode != .continuation || isFragmented else {
            return (.unsupportedData, "only binary, close, ping, and pong frames are supported")
        }
        let isFinal = headerBytes[0] & 0x80 != 0
        if opcode == .binary, isFragmented { return (.protocolError, "the message before is not complete") }
        if opcode.isControl, !isFinal { return (.protocolError, "control frames must not be fragmented") }
        if opcode.isControl, short > 125 { return (.protocolError, "control frame is too large") }
        if !isMasked { return (.protocolError, "client frames must be masked") }
        let length = lengthCount == 0 ? UInt64(short) : headerBytes[2..<2 + lengthCount].reduce(0) { $0 << 8 | UInt64($1) }
        if length >> 63 != 0 { return (.protocolError, "the length has too many bits") }
        current = Header(opcode: opcode, isFinal: isFinal, mask: Array(headerBytes.suffix(4)), remaining: length)
        return nil
    }

    private mutating func finishIfComplete(_ result: inout Received) {
        guard let header = current, header.remaining == 0 else { return }
        current = nil
        defer { if header.opcode.isControl { controlPayload = [] } }
        switch header.opcode {
        case .binary, .continuation, .text: isFragmented = !header.isFinal
        // Of many pings the last one is to be answered (section 5.5.3): a client that never reads cannot make us keep more.
        case .ping: result.answers = Self.frame(.pong, controlPayload)
        case .pong: break
        case .close: close(.normal, "the client has closed", &result)
        }
    }

    private mutating func close(_ code: CloseCode, _ reason: String, _ result: inout Received) {
        isClosed = true
        result.answers += Self.frame(.close, [UInt8(code.rawValue >> 8), UInt8(code.rawValue & 0xff)] + Array(reason.utf8))
    }

    /// A frame that carries data.
    static func frame(_ data: ArraySlice<UInt8>) -> [UInt8] { frame(.binary, data) }

    private static func frame(_ opcode: Opcode, _ payload: some Collection<UInt8>) -> [UInt8] {
        var bytes: [UInt8] = [0x80 | opcode.rawValue]
        switch payload.count {
        case ..<126: bytes.append(UInt8(payload.count))
        case ..<65536: bytes += [126, UInt8(payload.count >> 8), UInt8(payload.count & 0xff)]
        default:
            bytes.append(127)
            for shift in stride(from: 56, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: payload.count >> shift)) }
        }
        return bytes + payload
    }
}
