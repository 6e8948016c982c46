/// Builds a value from the tokens of one message. It keeps its own stack, so that nesting costs no thread stack.
enum JSONTokenParser {
    /// An array or object that is still open. Both halves live here and are changed in place, since a copy per element would cost
    /// quadratic time.
    private struct Container {
        var isObject: Bool
        var elements: [JSONValue] = []
        var object = JSONObject()
        /// The key that waits for its value.
        var key = ""
    }

    static func value(of tokens: [JSONToken], text: [UInt8]) -> Result<JSONValue, JSONError> {
        do throws(JSONError) {
            return .success(try parse(tokens, text))
        } catch {
            return .failure(error)
        }
    }

    private static func parse(_ tokens: [JSONToken], _ text: [UInt8]) throws(JSONError) -> JSONValue {
        var position = 0
        func failure(_ message: String) -> JSONError {
            let token = position < tokens.count ? tokens[position] : tokens[tokens.count - 1]
            return JSONError("JSON parse error, \(message)", at: token.offset)
        }
        func next(_ expectation: String) throws(JSONError) -> JSONToken {
            guard position < tokens.count else { throw failure("premature EOI") }
            return tokens[position]
        }
        func key() throws(JSONError) -> String {
            let token = try next("key")
            switch token.kind {
            case .string: break
            case .closeBrace, .closeBracket, .colon, .comma: throw failure("expecting value")
            default: throw failure("key is not a string in object")
            }
            let key = try string(token, text)
            position += 1
            guard try next(":").kind == .colon else { throw failure("missing : in object pair") }
            position += 1
            return key
        }

        var stack: [Container] = []
        while true {
            // A value is expected at `position`.
            var value: JSONValue
            let token = try next("value")
            switch token.kind {
            case .openBracket:
                position += 1
                if try next("]").kind != .closeBracket {
                    stack.append(Container(isObject: false))
                    continue
                }
                value = .array([])
            case .openBrace:
                position += 1
                if try next("}").kind != .closeBrace {
                    stack.append(Container(isObject: true, key: try key()))
                    continue
                }
                value = .object(JSONObject())
            case .string: value = .string(try string(token, text))
            case .integer, .number: value = try number(token, text)
            case .keyword: value = try keyword(token, text)
            default: throw failure("expecting value")
            }
            position += 1

            // A value is complete: give it to its container, and close containers as long as they end here.
            close: while let top = stack.indices.last {
                let isObject = stack[top].isObject
                if isObject {
                    guard stack[top].object.insert(stack[top].key, value) else { throw failure("duplicate key") }
                } else {
                    stack[top].elements.append(value)
                }
                let separator = try next("separator")
                if separator.kind == .comma {
                    position += 1
                    if isObject { stack[top].key = try key() }
                    break close
                }
                guard separator.kind == (isObject ? .closeBrace : .closeBracket) else {
                    throw failure("expected separator in \(isObject ? "dict" : "list")")
                }
                position += 1
                let closed = stack.removeLast()
                value = isObject ? .object(closed.object) : .array(closed.elements)
            }
            if stack.isEmpty { return value }
        }
    }

    private static func keyword(_ token: JSONToken, _ text: [UInt8]) throws(JSONError) -> JSONValue {
        switch String(decoding: text[token.text], as: UTF8.self) {
        case "true": return .bool(true)
        case "false": return .bool(false)
        case "null": return .null
        case let word: throw JSONError("JSON parse error, invalid keyword '\(word)'", at: token.offset)
        }
    }

    private static func number(_ token: JSONToken, _ text: [UInt8]) throws(JSONError) -> JSONValue {
        let digits = String(decoding: text[token.text], as: UTF8.self)
        if token.kind == .integer {
            if let value = Int(digits) { return .integer(value) }
            if let value = UInt64(digits) { return .unsigned(value) }
        }
        guard let value = Double(digits), value.isFinite else {
            throw JSONError("JSON parse error, number out of range '\(digits.prefix(40))'", at: token.offset)
        }
        return .number(value)
    }

    /// The text between the quotes, escapes resolved and UTF-8 checked.
    private static func string(_ token: JSONToken, _ text: [UInt8]) throws(JSONError) -> String {
        let raw = text[token.text].dropFirst().dropLast()
        guard raw.contains(UInt8(ascii: "\\")) else {
            guard let string = String(validating: raw, as: UTF8.self) else { throw badEncoding(token) }
            return string
        }
        var resolved: [UInt8] = []
        resolved.reserveCapacity(raw.count)
        var position = raw.startIndex
        while position < raw.endIndex {
            let byte = raw[position]
            position += 1
            if byte != UInt8(ascii: "\\") {
                resolved.append(byte)
                continue
            }
            guard position < raw.endIndex else { throw badEscape(token) }
            let escape = raw[position]
            position += 1
            switch escape {
            case UInt8(ascii: "\""), UInt8(ascii: "'"), UInt8(ascii: "\\"), UInt8(ascii: "/"): resolved.append(escape)
            case UInt8(ascii: "b"): resolved.append(0x08)
            case UInt8(ascii: "f"): resolved.append(0x0c)
            case UInt8(ascii: "n"): resolved.append(0x0a)
            case UInt8(ascii: "r"): resolved.append(0x0d)
            case UInt8(ascii: "t"): resolved.append(0x09)
            case UInt8(ascii: "u"): resolved += Array(String(try scalar(raw, &position, token)).utf8)
            default: throw badEscape(token)
            }
        }
        guard let string = String(validating: resolved, as: UTF8.self) else { throw badEncoding(token) }
        return string
    }

    /// The scalar of a `\u` escape whose digits start at `position`, joined with the surrogate that follows.
    private static func scalar(_ raw: ArraySlice<UInt8>, _ position: inout Int, _ token: JSONToken) throws(JSONError) -> Unicode.Scalar {
        let start = position
        guard let first = hex4(raw, &position) else {
            let digits = String(decoding: raw[start...].prefix(4), as: UTF8.self)
            throw JSONError("JSON parse error, \\u\(digits) is not a valid Unicode character", at: token.offset)
        }
        if first & 0xfc00 == 0xd800, position + 1 < raw.endIndex, raw[position] == UInt8(ascii: "\\"),
            raw[position + 1] == UInt8(ascii: "u")
        {
            var afterPair = position + 2
            if let second = hex4(raw, &afterPair), second & 0xfc00 == 0xdc00,
                let scalar = Unicode.Scalar(0x10000 + (first & 0x3ff) << 10 + (second & 0x3ff))
            {
                position = afterPair
                return scalar
            }
        }
        guard let scalar = Unicode.Scalar(first) else {
            let digits = String(decoding: raw[start..<position], as: UTF8.self)
            throw JSONError("JSON parse error, \\u\(digits) is not a valid Unicode character", at: token.offset)
        }
        return scalar
    }

    private static func hex4(_ raw: ArraySlice<UInt8>, _ position: inout Int) -> UInt32? {
        guard raw.endIndex - position >= 4 else { return nil }
        var value: UInt32 = 0
        for byte in raw[position..<position + 4] {
            guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue, byte < 0x80 else { return nil }
            value = value << 4 | UInt32(digit)
        }
        position += 4
        return value
    }

    private static func badEscape(_ token: JSONToken) -> JSONError {
        JSONError("JSON parse error, invalid escape sequence in string", at: token.offset)
    }

    private static func badEncoding(_ token: JSONToken) -> JSONError {
        JSONError("JSON parse error, invalid UTF-8 sequence in string", at: token.offset)
    }
}
