/// Bytes on their way to a peer during the handshake, where clarity is worth more than speed.
package struct HandshakeOutput: Sendable {
    package private(set) var bytes: [UInt8] = []

    package init() {}

    /// Takes what has been written so far; the output is empty afterwards.
    package mutating func take() -> [UInt8] {
        defer { bytes = [] }
        return bytes
    }

    mutating func append<I: FixedWidthInteger>(_ value: I) {
        for shift in stride(from: I.bitWidth - 8, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: value >> I(shift))) }
    }

    mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

    mutating func appendBytes(_ more: [UInt8]) { bytes.append(contentsOf: more) }

    mutating func appendZeroes(_ count: Int) { bytes.append(contentsOf: repeatElement(0, count: count)) }

    /// The answer to an option: magic, the option it answers, type, payload length, payload.
    mutating func reply(to option: NBDOption, _ type: NBDOptionReplyType, _ payload: HandshakeOutput = HandshakeOutput()) {
        append(NBDMagic.optionReply)
        append(option.rawValue)
        append(type.rawValue)
        append(UInt32(payload.bytes.count))
        bytes.append(contentsOf: payload.bytes)
    }

    /// An error with a sentence for people. The text is cut to what the protocol allows: it may echo what the client sent.
    mutating func refuse(_ option: NBDOption, _ type: NBDOptionReplyType, _ text: String) {
        var payload = HandshakeOutput()
        payload.append(text.wirePrefix)
        reply(to: option, type, payload)
    }
}

extension String {
    /// As much of the text as fits into a string on the wire without cutting a character in two.
    package var wirePrefix: String {
        if utf8.count <= NBDLimit.stringByteCount { return self }
        var cut = ""
        var count = 0
        for scalar in unicodeScalars {
            count += UTF8.width(scalar)
            if count > NBDLimit.stringByteCount { break }
            cut.unicodeScalars.append(scalar)
        }
        return cut
    }
}
