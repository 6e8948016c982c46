/// Reads JSON values from a stream of bytes that may be cut anywhere, and picks the stream up again after a message that is not JSON.
///
/// Values follow one another with or without white space; nothing depends on line ends. Memory is bounded by the limits.
public struct JSONStreamParser: Sendable {
    private var lexer = JSONLexer()
    private var tokens: [JSONToken] = []
    private var openBraces = 0
    private var openBrackets = 0
    private let limits: JSONLimits

    public init(limits: JSONLimits = JSONLimits()) { self.limits = limits }

    /// Whether a message has begun and not ended.
    public var isInsideMessage: Bool { !tokens.isEmpty || lexer.isInsideToken }

    /// Bytes that the parser holds between calls: the text of the unfinished message and its tokens.
    package var heldByteCount: Int { lexer.buffer.capacity + tokens.capacity * MemoryLayout<JSONToken>.stride }

    /// Takes more bytes and appends what they complete, values and errors in the order of the stream.
    public mutating func feed(_ bytes: some Sequence<UInt8>, into output: inout [Result<JSONValue, JSONError>]) {
        withLexer { parser, lexer in
            for byte in bytes {
                lexer.feed(byte) { lexer, token in parser.take(token, &lexer, into: &output) }
                if lexer.buffer.count > parser.limits.byteCount {
                    output.append(.failure(JSONError("JSON token size limit exceeded", at: lexer.offset)))
                    lexer.recover()
                    parser.startOver(&lexer)
                }
            }
        }
    }

    /// The stream ended.
    public mutating func finish(into output: inout [Result<JSONValue, JSONError>]) {
        withLexer { parser, lexer in
            lexer.finish { lexer, token in parser.take(token, &lexer, into: &output) }
            if !parser.tokens.isEmpty {
                output.append(.failure(JSONError("JSON parse error, premature EOI", at: lexer.offset)))
                parser.startOver(&lexer)
            }
        }
    }

    /// Takes the lexer out for a while, so that what it calls may change the rest of the parser.
    private mutating func withLexer(_ body: (inout Self, inout JSONLexer) -> Void) {
        var lexer = JSONLexer()
        swap(&lexer, &self.lexer)
        body(&self, &lexer)
        swap(&lexer, &self.lexer)
    }

    private mutating func take(_ token: JSONToken, _ lexer: inout JSONLexer, into output: inout [Result<JSONValue, JSONError>]) {
        switch token.kind {
        case .openBrace: openBraces += 1
        case .closeBrace: openBraces -= 1
        case .openBracket: openBrackets += 1
        case .closeBracket: openBrackets -= 1
        case .stray:
            let text = String(decoding: lexer.buffer[token.text], as: UTF8.self)
            output.append(.failure(JSONError("JSON parse error, stray '\(text)'", at: token.offset)))
            startOver(&lexer)
            return
        default: break
        }
        tokens.append(token)
        if openBraces + openBrackets > limits.nesting {
            output.append(.failure(JSONError("JSON nesting depth limit exceeded", at: token.offset)))
            startOver(&lexer)
        } else if tokens.count > limits.tokenCount {
            output.append(.failure(JSONError("JSON token count limit exceeded", at: token.offset)))
            startOver(&lexer)
        } else if openBraces < 0 || openBrackets < 0 || (openBraces == 0 && openBrackets == 0) {
            output.append(JSONTokenParser.value(of: tokens, text: lexer.buffer))
            startOver(&lexer)
        }
    }

    private mutating func startOver(_ lexer: inout JSONLexer) {
        openBraces = 0
        openBrackets = 0
        tokens.removeAll(keepingCapacity: tokens.capacity <= 1 << 12)
        lexer.reset()
    }
}

extension JSONValue {
    /// Parses a text that holds exactly one JSON value.
    public init(parsing text: some StringProtocol, limits: JSONLimits = JSONLimits()) throws(JSONError) {
        try self.init(parsing: Array(text.utf8), limits: limits)
    }

    /// Parses UTF-8 bytes that hold exactly one JSON value.
    public init(parsing bytes: [UInt8], limits: JSONLimits = JSONLimits()) throws(JSONError) {
        var parser = JSONStreamParser(limits: limits)
        var results: [Result<JSONValue, JSONError>] = []
        for byte in bytes {
            parser.feed(CollectionOfOne(byte), into: &results)
            if results.count > 1 { break }
            if case .failure(let error) = results.first { throw error }
        }
        parser.finish(into: &results)
        guard let first = results.first else { throw JSONError("Expecting a JSON value", at: bytes.count) }
        let value = try first.get()
        if results.count > 1 { throw JSONError("Expecting at most one JSON value", at: bytes.count) }
        self = value
    }
}
