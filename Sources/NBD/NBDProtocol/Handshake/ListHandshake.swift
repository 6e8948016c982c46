package import StrataBase

/// What a server says about one of its exports.
package struct ListedExport: Hashable, Sendable {
    package var name: String
    package var description: String?
    /// Bytes; nil when the server does not say more than the name.
    package var byteCount: Int?
    package var flags: NBDTransmissionFlags = []
    package var blockSizes: NBDBlockSizes?
    /// Whether requests may have 64-bit lengths.
    package var hasExtendedHeaders = false
    package var metaContexts: [String] = []

    package init(name: String, description: String? = nil) {
        self.name = name
        self.description = description
    }
}

/// A client that wants to know what a server has: lists the exports, asks about each, and leaves.
///
/// As careful as `ClientHandshake`: lengths, kinds and the number of answers are checked, and a server whose answers have no end is left.
/// Source: NBD protocol document, "NBD_OPT_LIST", "NBD_OPT_INFO", "NBD_OPT_LIST_META_CONTEXT".
package struct ListHandshake: ClientNegotiation {
    /// The most exports that are listed.
    package static let exportCount = 10_000
    /// The longest payload of one answer, in bytes: two strings and the length of the first.
    package static let replyPayloadByteCount = 2 * NBDLimit.stringByteCount + 64
    /// Contexts that are noted for one export.
    private static let contextCount = 1024
    /// Bytes that a server may take for all of its answers: all exports with all contexts and the longest names would be 40 GiB.
    package static let answerByteCount = 32 << 20

    private enum State: Hashable {
        case greeting
        case flags
        case tlsBegins
        case awaiting(NBDOption)
        case ended
    }

    private let usesTLS: Bool
    private var state = State.greeting
    private var exports: [ListedExport] = []
    /// The export that is being asked about.
    private var current = 0
    private var hasExtendedHeaders = false
    private var hasStructuredReplies = false
    private var receivedByteCount = 0

    package init(usesTLS: Bool) { self.usesTLS = usesTLS }

    private static func malformed(_ text: String) -> BlockError { BlockError(.connection, "The NBD server broke the protocol: \(text)") }

    package mutating func tlsStarted(_ output: inout HandshakeOutput) {
        precondition(state == .tlsBegins, "TLS begins when the server has agreed to it")
        ask(.extendedHeaders, &output)
    }

    package mutating func advance(_ bytes: RawSpan, _ output: inout HandshakeOutput) throws(BlockError) -> (consumed: Int, NegotiationStep<[ListedExport]>) {
        switch state {
        case .greeting:
            guard bytes.byteCount >= 16 else { return (0, .needsMore) }
            guard bytes.checkedBigEndian(at: 0, as: UInt64.self) == NBDMagic.greeting else { throw Self.malformed("its greeting is not that of an NBD server") }
            guard bytes.checkedBigEndian(at: 8, as: UInt64.self) == NBDMagic.option else { throw Self.cannotList }
            state = .flags
            return (16, .needsMore)
        case .flags:
            guard bytes.byteCount >= 2 else { return (0, .needsMore) }
            guard NBDHandshakeFlags(rawValue: bytes.checkedBigEndian(at: 0)).contains(.fixedNewstyle) else { throw Self.cannotList }
            output.append(NBDClientFlags.fixedNewstyle.rawValue)
            ask(usesTLS ? .startTLS : .extendedHeaders, &output)
            return (2, .needsMore)
        case .awaiting(let option): return try readReply(bytes, to: option, &output)
        case .tlsBegins: throw Self.malformed("bytes came in clear after TLS was agreed on")
        case .ended: throw Self.malformed("the handshake is over")
        }
    }

    private static let cannotList = BlockError(.unsupported, "The NBD server is too old to list its exports")

    // MARK: Asking

    private mutating func ask(_ option: NBDOption, _ output: inout HandshakeOutput, _ payload: HandshakeOutput = HandshakeOutput()) {
        output.ask(option, payload)
        state = .awaiting(option)
    }

    /// The next question; when there is none left, the client says that it leaves.
    /// - Returns: whether everything has been asked.
    private mutating func askAfter(_ option: NBDOption, _ output: inout HandshakeOutput) -> Bool {
        switch option {
        case .startTLS: ask(.extendedHeaders, &output)
        case .extendedHeaders where !hasExtendedHeaders: ask(.structuredReply, &output)
        case .extendedHeaders, .structuredReply: ask(.list, &output)
        case .info where hasExtendedHeaders || hasStructuredReplies:
            var payload = HandshakeOutput()
            payload.appendString(exports[current].name)
            payload.append(UInt32(0))
            ask(.listMetaContext, &output, payload)
        case .info, .listMetaContext:
            current += 1
            return !askAboutExport(&output)
        default: return !askAboutExport(&output)
        }
        return false
    }

    private mutating func askAboutExport(_ output: inout HandshakeOutput) -> Bool {
        guard current < exports.count else {
            output.ask(.abort, HandshakeOutput())
            state = .ended
            return false
        }
        var payload = HandshakeOutput()
        payload.appendString(exports[current].name)
        let wanted: [NBDInfoType] = [.description, .blockSize]
        payload.append(UInt16(wanted.count))
        for type in wanted { payload.append(type.rawValue) }
        ask(.info, &output, payload)
        return true
    }

    // MARK: Replies

    private mutating func readReply(
        _ bytes: RawSpan, to option: NBDOption, _ output: inout HandshakeOutput
    ) throws(BlockError) -> (consumed: Int, NegotiationStep<[ListedExport]>) {
        guard bytes.byteCount >= 20 else { return (0, .needsMore) }
        let magic: UInt64 = bytes.checkedBigEndian(at: 0)
        guard magic == NBDMagic.optionReply else { throw Self.malformed("an option reply has the magic 0x\(String(magic, radix: 16))") }
        let answered = NBDOption(rawValue: bytes.checkedBigEndian(at: 8))
        guard answered == option else { throw Self.malformed("it answered option \(answered.rawValue) when \(option.rawValue) was asked") }
        let type = NBDOptionReplyType(rawValue: bytes.checkedBigEndian(at: 12))
        let size = Int(bytes.checkedBigEndian(at: 16, as: UInt32.self))
        guard size <= Self.replyPayloadByteCount else { throw Self.malformed("an answer to option \(option.rawValue) has a payload of \(size) bytes") }
        guard bytes.byteCount >= 20 + size else { return (0, .needsMore) }
        receivedByteCount += 20 + size
        guard receivedByteCount <= Self.answerByteCount else { throw Self.malformed("its answers have no end") }
        let payload = bytes.extracting(20..<20 + size)
        if type.isError {
            try refuse(option, type, ServerText.line(payload))
        } else {
            do throws(DecodingFailure) { try readAnswer(option, type, payload) } catch { throw Self.malformed("\(error)") }
            if type != .acknowledged { return (20 + size, .needsMore) }
            if option == .startTLS {
                state = .tlsBegins
                return (20 + size, .startTLS)
            }
        }
        return (20 + size, askAfter(option, &output) ? .done(exports) : .needsMore)
    }

    private mutating func readAnswer(_ option: NBDOption, _ type: NBDOptionReplyType, _ payload: RawSpan) throws(DecodingFailure) {
        switch (option, type) {
        case (_, .acknowledged):
            guard payload.byteCount == 0 else { throw .invalid("the acknowledgement of option \(option.rawValue) has a payload") }
            if option == .extendedHeaders { hasExtendedHeaders = true }
            if option == .structuredReply { hasStructuredReplies = true }
        case (.list, .server):
            guard exports.count < Self.exportCount else { throw .invalid("it has more than \(Self.exportCount) exports") }
            var reader = PayloadReader(byteCount: payload.byteCount)
            var export = ListedExport(name: try reader.string(payload, what: "export name"))
            let rest = payload.extracting(payload.byteCount - reader.remaining..<payload.byteCount)
            guard rest.byteCount <= NBDLimit.stringByteCount else { throw .invalid("a description of \(rest.byteCount) bytes") }
            if rest.byteCount > 0 { export.description = try String(wireBytes: rest, what: "export description") }
            export.hasExtendedHeaders = hasExtendedHeaders
            exports.append(export)
        case (.info, .info): try readInformation(payload)
        case (.listMetaContext, .metaContext):
            guard exports[current].metaContexts.count < Self.contextCount else { throw .invalid("it has more than \(Self.contextCount) contexts for one export") }
            guard payload.byteCount >= 4 else { throw .truncated(needed: 4, available: payload.byteCount) }
            exports[current].metaContexts.append(try String(wireBytes: payload.extracting(4..<payload.byteCount), what: "context name"))
        default:
            throw .invalid("it answered option \(option.rawValue) with a reply of type \(type.rawValue)")
        }
    }

    private mutating func readInformation(_ payload: RawSpan) throws(DecodingFailure) {
        switch NBDInfoType(rawValue: try payload.bigEndian(at: 0)) {
        case .export:
            guard payload.byteCount == 12 else { throw .invalid("the export's size and flags take \(payload.byteCount) bytes and not 12") }
            guard let byteCount = Int(exactly: payload.checkedBigEndian(at: 2, as: UInt64.self)) else { throw .invalid("an export of more than 2^63 bytes") }
            exports[current].byteCount = byteCount
            exports[current].flags = NBDTransmissionFlags(rawValue: payload.checkedBigEndian(at: 10))
        case .description:
            exports[current].description = try String(wireBytes: payload.extracting(2..<payload.byteCount), what: "export description")
        case .blockSize:
            guard payload.byteCount == 14 else { throw .invalid("the export's block sizes take \(payload.byteCount) bytes and not 14") }
            exports[current].blockSizes = NBDBlockSizes(
                minimum: Int(payload.checkedBigEndian(at: 2, as: UInt32.self)), preferred: Int(payload.checkedBigEndian(at: 6, as: UInt32.self)),
                maximum: Int(payload.checkedBigEndian(at: 10, as: UInt32.self)))
        default: break
        }
    }

    /// The server said no. To a question about one export it may: then less is known about it.
    private func refuse(_ option: NBDOption, _ type: NBDOptionReplyType, _ text: String) throws(BlockError) {
        let said = text.isEmpty ? "" : " (server reported: \(text))"
        switch option {
        case .startTLS: throw BlockError(.unsupported, "The NBD server does not support TLS\(said)")
        case _ where type == .tlsRequired: throw BlockError(.accessDenied, "The NBD server requires TLS\(said)", hint: "Name a tls-creds object in '--tls-creds'.")
        case .list: throw BlockError(.accessDenied, "The NBD server does not list its exports\(said)")
        default: break
        }
    }
}
