package import StrataBase

/// The client's side of the handshake: a pure value, fed with what arrived, that says what to send.
///
/// It speaks fixed newstyle, falls back to what older servers know (no GO, no structured replies, plain newstyle, oldstyle), and believes
/// nothing: an answer to another option, a length that does not fit its kind, an export without a size, a second answer where one is due each end
/// the negotiation with an error that says what was wrong. It keeps no bytes; a reply is consumed whole or not at all.
/// Source: NBD protocol document, "Handshake phase", "Option types", "Option reply types".
package struct ClientHandshake: Sendable {
    /// What the client would like to have. What the server does not offer is done without, except for TLS and an export.
    package struct Wishes: Hashable, Sendable {
        package var exportName: String
        /// The context to ask block status for, for example `base:allocation`; nil for none.
        package var metaContext: String?
        /// The richest form of replies to ask for.
        package var replyStyle: NBDSession.ReplyStyle
        /// Go on only over TLS.
        package var usesTLS: Bool

        package init(exportName: String, metaContext: String? = "base:allocation", replyStyle: NBDSession.ReplyStyle = .extended, usesTLS: Bool = false) {
            self.exportName = exportName
            self.metaContext = metaContext
            self.replyStyle = replyStyle
            self.usesTLS = usesTLS
        }
    }

    /// What to do after sending what was written to the output.
    package enum Verdict: Hashable, Sendable {
        /// Wait for more bytes, or call again when some were consumed.
        case needsMore
        /// Encrypt from here on, then call `tlsStarted`. Bytes that have arrived already must not be used.
        case startTLS
        /// Bytes that follow are replies.
        case transmission(NBDClientSession)
    }

    private enum State: Hashable {
        case greeting
        case newstyleFlags
        case tlsBegins
        case awaiting(NBDOption)
        /// The answer to EXPORT_NAME, which has a form of its own.
        case exportNameAnswer
        case oldstyle
        case ended
    }

    private let wishes: Wishes
    private var state = State.greeting
    private var serverFlags: NBDHandshakeFlags = []
    private var session: NBDClientSession
    private var hasExportInfo = false
    private var replyByteCount = 0

    /// Bytes that a server may take for all of its answers. Honest ones need a few hundred.
    private static let answerByteCount = 1 << 20
    /// The longest payload of one answer, in bytes: information and error texts are strings of at most 4096 bytes.
    package static let replyPayloadByteCount = NBDLimit.stringByteCount + 64

    package init(_ wishes: Wishes) {
        self.wishes = wishes
        session = NBDClientSession(byteCount: 0, flags: [], blockSizes: nil, replyStyle: .simple, metaContextID: nil)
    }

    /// Takes as much of `bytes` as can be understood so far, at most one message.
    /// - Returns: how many bytes to drop from the front, and what to do next.
    /// - Throws: what the server did wrong (`.connection`), or how it refused (`.notFound`, `.accessDenied`, `.unsupported`).
    package mutating func consume(_ bytes: RawSpan, _ output: inout HandshakeOutput) throws(BlockError) -> (consumed: Int, Verdict) {
        do throws(HandshakeFailure) {
            return try step(bytes, &output)
        } catch {
            state = .ended
            switch error {
            case .malformed(let text): throw BlockError(.connection, "The NBD server broke the protocol: \(text)")
            case .refused(let refusal): throw refusal
            }
        }
    }

    /// The connection is encrypted now: goes on with the options.
    package mutating func tlsStarted(_ output: inout HandshakeOutput) {
        precondition(state == .tlsBegins, "TLS begins when the server has agreed to it")
        askAfter(.startTLS, &output)
    }

    private enum HandshakeFailure: Error {
        case malformed(String)
        case refused(BlockError)
    }

    private mutating func step(_ bytes: RawSpan, _ output: inout HandshakeOutput) throws(HandshakeFailure) -> (Int, Verdict) {
        switch state {
        case .greeting: return try readGreeting(bytes)
        case .newstyleFlags: return try readFlags(bytes, &output)
        case .awaiting(let option): return try readReply(bytes, to: option, &output)
        case .exportNameAnswer: return try readExportNameAnswer(bytes)
        case .oldstyle: return try readOldstyle(bytes)
        case .tlsBegins: throw .malformed("bytes came in clear after TLS was agreed on")
        case .ended: throw .malformed("the handshake is over")
        }
    }

    // MARK: Greeting

    private mutating func readGreeting(_ bytes: RawSpan) throws(HandshakeFailure) -> (Int, Verdict) {
        guard bytes.byteCount >= 16 else {
            // Enough to tell a server of another kind at once.
            if bytes.byteCount >= 8, bytes.checkedBigEndian(at: 0, as: UInt64.self) != NBDMagic.greeting { throw .malformed("its greeting is not that of an NBD server") }
            return (0, .needsMore)
        }
        guard bytes.checkedBigEndian(at: 0, as: UInt64.self) == NBDMagic.greeting else { throw .malformed("its greeting is not that of an NBD server") }
        let style: UInt64 = bytes.checkedBigEndian(at: 8)
        switch style {
        case NBDMagic.option: state = .newstyleFlags
        case NBDMagic.oldstyle: state = .oldstyle
        default: throw .malformed("its greeting has the unknown magic 0x\(String(style, radix: 16))")
        }
        return (16, .needsMore)
    }

    private mutating func readFlags(_ bytes: RawSpan, _ output: inout HandshakeOutput) throws(HandshakeFailure) -> (Int, Verdict) {
        guard bytes.byteCount >= 2 else { return (0, .needsMore) }
        serverFlags = NBDHandshakeFlags(rawValue: bytes.checkedBigEndian(at: 0))
        var flags: NBDClientFlags = []
        if serverFlags.contains(.fixedNewstyle) { flags.insert(.fixedNewstyle) }
        if serverFlags.contains(.noZeroes) { flags.insert(.noZeroes) }
        output.append(flags.rawValue)
        guard serverFlags.contains(.fixedNewstyle) else {
            if wishes.usesTLS { throw .refused(BlockError(.unsupported, "The NBD server does not support TLS: it does not negotiate options")) }
            askForExportByName(&output)
            return (2, .needsMore)
        }
        if wishes.usesTLS { ask(.startTLS, &output) } else { askAfter(.startTLS, &output) }
        return (2, .needsMore)
    }

    private mutating func readOldstyle(_ bytes: RawSpan) throws(HandshakeFailure) -> (Int, Verdict) {
        if wishes.usesTLS { throw .refused(BlockError(.unsupported, "The NBD server does not support TLS: it speaks the oldest form of the protocol")) }
        if !wishes.exportName.isEmpty {
            throw .refused(BlockError(.notFound, "The NBD server has one export without a name, and '\(wishes.exportName)' was asked for"))
        }
        // Size, 16 bits of global flags, 16 bits of export flags, 124 reserved bytes.
        guard bytes.byteCount >= 136 else { return (0, .needsMore) }
        try setExport(byteCount: bytes.checkedBigEndian(at: 0), flags: bytes.checkedBigEndian(at: 10))
        return (136, try finish())
    }

    // MARK: Asking

    private mutating func ask(_ option: NBDOption, _ output: inout HandshakeOutput, _ payload: HandshakeOutput = HandshakeOutput()) {
        output.ask(option, payload)
        state = .awaiting(option)
    }

    /// Asks for what comes after `option` in our order: the reply style first, because contexts depend on it; the export last.
    private mutating func askAfter(_ option: NBDOption, _ output: inout HandshakeOutput) {
        switch option {
        case .startTLS where wishes.replyStyle == .extended:
            ask(.extendedHeaders, &output)
        case .startTLS where wishes.replyStyle == .structured:
            ask(.structuredReply, &output)
        case .extendedHeaders where session.replyStyle == .simple:
            ask(.structuredReply, &output)
        case .setMetaContext:
            askForExport(&output)
        default:
            if let context = wishes.metaContext, session.replyStyle != .simple {
                var payload = HandshakeOutput()
                payload.appendString(wishes.exportName)
                payload.append(UInt32(1))
                payload.appendString(context)
                ask(.setMetaContext, &output, payload)
            } else {
                askForExport(&output)
            }
        }
    }

    private mutating func askForExport(_ output: inout HandshakeOutput) {
        var payload = HandshakeOutput()
        payload.appendString(wishes.exportName)
        payload.append(UInt16(1))
        payload.append(NBDInfoType.blockSize.rawValue)
        ask(.go, &output, payload)
    }

    /// What servers know that do not know GO. It has no way to say no but to hang up.
    private mutating func askForExportByName(_ output: inout HandshakeOutput) {
        var payload = HandshakeOutput()
        payload.append(wishes.exportName)
        output.ask(.exportName, payload)
        state = .exportNameAnswer
    }

    // MARK: Replies

    private mutating func readReply(_ bytes: RawSpan, to option: NBDOption, _ output: inout HandshakeOutput) throws(HandshakeFailure) -> (Int, Verdict) {
        guard bytes.byteCount >= 20 else { return (0, .needsMore) }
        let magic: UInt64 = bytes.checkedBigEndian(at: 0)
        guard magic == NBDMagic.optionReply else { throw .malformed("an option reply has the magic 0x\(String(magic, radix: 16))") }
        let answered = NBDOption(rawValue: bytes.checkedBigEndian(at: 8))
        guard answered == option else { throw .malformed("it answered option \(answered.rawValue) when \(option.rawValue) was asked") }
        let type = NBDOptionReplyType(rawValue: bytes.checkedBigEndian(at: 12))
        let size = Int(bytes.checkedBigEndian(at: 16, as: UInt32.self))
        guard size <= Self.replyPayloadByteCount else { throw .malformed("an answer to option \(option.rawValue) has a payload of \(size) bytes") }
        replyByteCount += 20 + size
        guard replyByteCount <= Self.answerByteCount else { throw .malformed("its answers to option \(option.rawValue) have no end") }
        guard bytes.byteCount >= 20 + size else {
            replyByteCount -= 20 + size  // counted when it is whole
            return (0, .needsMore)
        }
        let payload = bytes.extracting(20..<20 + size)
        if type.isError {
            try refused(option, type, ServerText.line(payload), &output)
        } else {
            do throws(DecodingFailure) {
                try readAnswer(option, type, payload)
            } catch {
                throw .malformed("\(error)")
            }
            if type == .acknowledged {
                if option == .go { return (20 + size, try finish()) }
                if option == .startTLS {
                    state = .tlsBegins
                    return (20 + size, .startTLS)
                }
                askAfter(option, &output)
            }
        }
        return (20 + size, .needsMore)
    }

    private mutating func readAnswer(_ option: NBDOption, _ type: NBDOptionReplyType, _ payload: RawSpan) throws(DecodingFailure) {
        switch (option, type) {
        case (_, .acknowledged):
            guard payload.byteCount == 0 else { throw .invalid("the acknowledgement of option \(option.rawValue) has a payload") }
            switch option {
            case .extendedHeaders: session.replyStyle = .extended
            case .structuredReply: session.replyStyle = .structured
            case .go where !hasExportInfo: throw .invalid("it agreed to an export without saying its size")
            default: break
            }
        case (.setMetaContext, .metaContext):
            let name = try String(wireBytes: payload.extracting(min(4, payload.byteCount)..<payload.byteCount), what: "context name")
            let identifier: UInt32 = try payload.bigEndian(at: 0)
            guard name == wishes.metaContext else { throw .invalid("it chose the context '\(name)', which was not asked for") }
            guard session.metaContextID == nil else { throw .invalid("it chose the context '\(name)' twice") }
            session.metaContextID = identifier
        case (.go, .info):
            try readInformation(payload)
        default:
            throw .invalid("it answered option \(option.rawValue) with a reply of type \(type.rawValue)")
        }
    }

    private mutating func readInformation(_ payload: RawSpan) throws(DecodingFailure) {
        let type = NBDInfoType(rawValue: try payload.bigEndian(at: 0))
        switch type {
        case .export:
            guard payload.byteCount == 12 else { throw .invalid("the export's size and flags take \(payload.byteCount) bytes and not 12") }
            do throws(HandshakeFailure) {
                try setExport(byteCount: payload.checkedBigEndian(at: 2), flags: payload.checkedBigEndian(at: 10))
            } catch {
                if case .malformed(let text) = error { throw .invalid(text) }
            }
        case .blockSize:
            guard payload.byteCount == 14 else { throw .invalid("the export's block sizes take \(payload.byteCount) bytes and not 14") }
            let minimum: UInt32 = payload.checkedBigEndian(at: 2)
            let preferred: UInt32 = payload.checkedBigEndian(at: 6)
            let maximum: UInt32 = payload.checkedBigEndian(at: 10)
            guard minimum.nonzeroBitCount == 1, minimum <= 1 << 16 else { throw .invalid("a minimum block size of \(minimum) bytes") }
            guard preferred.nonzeroBitCount == 1, preferred >= minimum else { throw .invalid("a preferred block size of \(preferred) bytes with a minimum of \(minimum)") }
            guard maximum >= minimum, maximum == .max || maximum % minimum == 0 else { throw .invalid("a maximum block size of \(maximum) bytes with a minimum of \(minimum)") }
            session.blockSizes = NBDBlockSizes(minimum: Int(minimum), preferred: Int(preferred), maximum: Int(maximum))
        default:
            break  // names and descriptions, and what the future brings
        }
    }

    /// The server said no.
    private mutating func refused(_ option: NBDOption, _ type: NBDOptionReplyType, _ text: String, _ output: inout HandshakeOutput) throws(HandshakeFailure) {
        let said = text.isEmpty ? "" : " (server reported: \(text))"
        switch option {
        case .startTLS:
            throw .refused(BlockError(.unsupported, "The NBD server does not support TLS\(said)"))
        case _ where type == .tlsRequired:
            throw .refused(BlockError(.accessDenied, "The NBD server requires TLS\(said)", hint: "Name a tls-creds object in 'tls-creds'."))
        case .extendedHeaders, .structuredReply:
            askAfter(option, &output)
        case .setMetaContext:
            session.metaContextID = nil
            askAfter(option, &output)
        case .go where type == .unsupported:
            askForExportByName(&output)
        default:
            let name = wishes.exportName
            let error =
                switch type {
                case .unknownExport: BlockError(.notFound, "Requested export not available\(said)")
                case .policy: BlockError(.accessDenied, "The NBD server does not let us use export '\(name)'\(said)")
                case .shutdown: BlockError(.connection, "The NBD server is shutting down\(said)")
                case .blockSizeRequired: BlockError(.unsupported, "The NBD server insists on block sizes for export '\(name)' although they were asked for\(said)")
                default: BlockError(.connection, "The NBD server refused export '\(name)' with error \(type.rawValue & 0x7fff_ffff)\(said)")
                }
            throw .refused(error)
        }
    }

    // MARK: The end

    private mutating func readExportNameAnswer(_ bytes: RawSpan) throws(HandshakeFailure) -> (Int, Verdict) {
        let size = serverFlags.contains(.noZeroes) ? 10 : 134
        guard bytes.byteCount >= size else { return (0, .needsMore) }
        try setExport(byteCount: bytes.checkedBigEndian(at: 0), flags: bytes.checkedBigEndian(at: 8))
        return (size, try finish())
    }

    private mutating func setExport(byteCount: UInt64, flags: UInt16) throws(HandshakeFailure) {
        // A few sectors below 2^63, so that rounding up never overflows.
        guard byteCount <= UInt64(Int.max) - (1 << 20) else { throw .malformed("an export of \(byteCount) bytes") }
        session.byteCount = Int(byteCount)
        session.flags = NBDTransmissionFlags(rawValue: flags)
        hasExportInfo = true
    }

    private mutating func finish() throws(HandshakeFailure) -> Verdict {
        if let sizes = session.blockSizes, !session.byteCount.isMultiple(of: sizes.minimum) {
            throw .malformed("an export of \(session.byteCount) bytes with a minimum block size of \(sizes.minimum)")
        }
        state = .ended
        return .transmission(session)
    }
}

/// What a client's handshake agreed on.
package struct NBDClientSession: Hashable, Sendable {
    /// Bytes.
    package var byteCount: Int
    package var flags: NBDTransmissionFlags
    /// Nil when the server does not say.
    package var blockSizes: NBDBlockSizes?
    package var replyStyle: NBDSession.ReplyStyle
    /// The number that the server gave to the context that was asked for.
    package var metaContextID: UInt32?

    package init(byteCount: Int, flags: NBDTransmissionFlags, blockSizes: NBDBlockSizes?, replyStyle: NBDSession.ReplyStyle, metaContextID: UInt32?) {
        self.byteCount = byteCount
        self.flags = flags
        self.blockSizes = blockSizes
        self.replyStyle = replyStyle
        self.metaContextID = metaContextID
    }
}

extension HandshakeOutput {
    /// An option: magic, number, payload length, payload.
    mutating func ask(_ option: NBDOption, _ payload: HandshakeOutput) {
        append(NBDMagic.option)
        append(option.rawValue)
        append(UInt32(payload.bytes.count))
        appendBytes(payload.bytes)
    }

    /// A 32-bit length and the text.
    mutating func appendString(_ text: String) {
        append(UInt32(text.utf8.count))
        append(text)
    }
}
