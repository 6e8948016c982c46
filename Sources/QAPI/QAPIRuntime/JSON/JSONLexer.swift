/// A token of QEMU's JSON dialect. Strings may stand in single quotes too.
struct JSONToken: Hashable, Sendable {
    enum Kind: Hashable, Sendable {
        case openBrace, closeBrace, openBracket, closeBracket, colon, comma
        case string, integer, number, keyword
        /// Bytes that cannot start or continue a token.
        case stray
    }
    var kind: Kind
    /// The token's text in the lexer's buffer.
    var text: Range<Int>
    /// Bytes from the start of the stream.
    var offset: Int
}

/// Cuts a stream of bytes into tokens, whatever the pieces in which the stream arrives.
///
/// After a stray token the lexer skips bytes until one where a sender may be assumed to have started afresh: a bracket or other structural
/// character, a control character such as the end of the line, or one of the bytes 0xFE and 0xFF that UTF-8 never contains. This is the
/// recovery that the QMP specification promises to clients.
struct JSONLexer: Sendable {
    private enum State {
        case start, recovery, keyword
        case string(quote: UInt8)
        case escape(quote: UInt8)
        case minus, zero, digits, point, fraction, exponent, exponentSign, exponentDigits
    }

    /// The text of the tokens since the last `reset`.
    private(set) var buffer: [UInt8] = []
    /// Bytes seen so far.
    private(set) var offset = 0
    private var state = State.start
    private var tokenStart = 0
    private var tokenOffset = 0

    /// Forgets the text of tokens; must not be called inside a token.
    mutating func reset() {
        // A huge message must not keep its memory for the rest of the session.
        buffer.removeAll(keepingCapacity: buffer.capacity <= 1 << 16)
    }

    /// Bytes of the token that is being read, for limits.
    var isInsideToken: Bool {
        switch state {
        case .start, .recovery: false
        default: true
        }
    }

    /// Gives up on the current token and skips until a place where the stream can be picked up again.
    mutating func recover() {
        state = .recovery
    }

    /// Takes one byte and hands over the tokens that it completes: none, one, or two when it ends one token and is the next.
    mutating func feed(_ byte: UInt8, _ emit: (inout JSONLexer, JSONToken) -> Void) {
        if !step(byte, emit) { _ = step(byte, emit) }
        offset += 1
    }

    /// The stream ended: hands over the token that the end completes.
    mutating func finish(_ emit: (inout JSONLexer, JSONToken) -> Void) {
        switch state {
        case .start, .recovery: break
        default:
            // A blank ends every token that can end here.
            if step(UInt8(ascii: "\n"), emit) == false { state = .start }
        }
    }

    /// - Returns: false when the byte only ended the previous token and must be looked at again.
    private mutating func step(_ byte: UInt8, _ emit: (inout JSONLexer, JSONToken) -> Void) -> Bool {
        switch state {
        case .start: begin(byte, emit)
        case .recovery:
            switch byte {
            case UInt8(ascii: "{"), UInt8(ascii: "}"), UInt8(ascii: "["), UInt8(ascii: "]"), UInt8(ascii: ","), UInt8(ascii: ":"),
                0x00...0x08, 0x0a...0x1f, 0xfe, 0xff:
                state = .start
                return false
            default: break
            }
        case .string(let quote):
            switch byte {
            case quote: end(.string, taking: byte, emit)
            case UInt8(ascii: "\\"): take(byte, .escape(quote: quote))
            case 0x20...0xfd: take(byte, .string(quote: quote))
            default: fail(byte, emit)
            }
        case .escape(let quote):
            if byte < 0x20 || byte > 0xfd { fail(byte, emit) } else { take(byte, .string(quote: quote)) }
        case .keyword:
            if byte >= UInt8(ascii: "a"), byte <= UInt8(ascii: "z") { take(byte, .keyword) } else { return endBefore(.keyword, emit) }
        default: return stepInNumber(byte, emit)
        }
        return true
    }

    private mutating func begin(_ byte: UInt8, _ emit: (inout JSONLexer, JSONToken) -> Void) {
        tokenStart = buffer.count
        tokenOffset = offset
        switch byte {
        case UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\n"), UInt8(ascii: "\r"): break
        case UInt8(ascii: "{"): end(.openBrace, emit)
        case UInt8(ascii: "}"): end(.closeBrace, emit)
        case UInt8(ascii: "["): end(.openBracket, emit)
        case UInt8(ascii: "]"): end(.closeBracket, emit)
        case UInt8(ascii: ":"): end(.colon, emit)
        case UInt8(ascii: ","): end(.comma, emit)
        case UInt8(ascii: "\""), UInt8(ascii: "'"): take(byte, .string(quote: byte))
        case UInt8(ascii: "-"): take(byte, .minus)
        case UInt8(ascii: "0"): take(byte, .zero)
        case UInt8(ascii: "1")...UInt8(ascii: "9"): take(byte, .digits)
        case UInt8(ascii: "a")...UInt8(ascii: "z"): take(byte, .keyword)
        default: fail(byte, emit)
        }
    }

    private mutating func stepInNumber(_ byte: UInt8, _ emit: (inout JSONLexer, JSONToken) -> Void) -> Bool {
        let isDigit = byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9")
        let isExponent = byte | 0x20 == UInt8(ascii: "e")
        let isPoint = byte == UInt8(ascii: ".")
        switch state {
        case .minus:
            if byte == UInt8(ascii: "0") { take(byte, .zero) } else if isDigit { take(byte, .digits) } else { fail(byte, emit) }
        case .zero:
            if isPoint {
                take(byte, .point)
            } else if isExponent {
                take(byte, .exponent)
            } else if isDigit {
                fail(byte, emit)
            } else {
                return endBefore(.integer, emit)
            }
        case .digits:
            if isDigit {
                take(byte, .digits)
            } else if isPoint {
                take(byte, .point)
            } else if isExponent {
                take(byte, .exponent)
            } else {
                return endBefore(.integer, emit)
            }
        case .point:
            if isDigit { take(byte, .fraction) } else { fail(byte, emit) }
        case .fraction:
            if isDigit { take(byte, .fraction) } else if isExponent { take(byte, .exponent) } else { return endBefore(.number, emit) }
        case .exponent:
            if isDigit {
                take(byte, .exponentDigits)
            } else if byte == UInt8(ascii: "+") || byte == UInt8(ascii: "-") {
                take(byte, .exponentSign)
            } else {
                fail(byte, emit)
            }
        case .exponentSign:
            if isDigit { take(byte, .exponentDigits) } else { fail(byte, emit) }
        default:
            if isDigit { take(byte, .exponentDigits) } else { return endBefore(.number, emit) }
        }
        return true
    }

    private mutating func take(_ byte: UInt8, _ next: State) {
        buffer.append(byte)
        state = next
    }

    private mutating func end(_ kind: JSONToken.Kind, taking byte: UInt8? = nil, _ emit: (inout JSONLexer, JSONToken) -> Void) {
        if let byte { buffer.append(byte) }
        state = .start
        emit(&self, JSONToken(kind: kind, text: tokenStart..<buffer.count, offset: tokenOffset))
    }

    private mutating func endBefore(_ kind: JSONToken.Kind, _ emit: (inout JSONLexer, JSONToken) -> Void) -> Bool {
        end(kind, emit)
        return false
    }

    private mutating func fail(_ byte: UInt8, _ emit: (inout JSONLexer, JSONToken) -> Void) {
        end(.stray, taking: byte, emit)
        state = .recovery
    }
}
