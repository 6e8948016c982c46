import StrataBase

/// The server's side of the fixed newstyle handshake: a pure value, fed with what arrived, that says what to send.
///
/// It keeps no bytes of its own. Whoever drives it holds what has been received, offers all of it, and drops as many bytes as were
/// consumed; an option is consumed whole or not at all, so the holder needs room for one option header and `NBDLimit.optionPayloadByteCount`.
/// Options whose payload is longer than that are answered and skipped piece by piece.
///
/// Bad options are answered by an error and the session goes on. It ends where the protocol leaves no other way: wrong magic numbers, unknown
/// client flags, an unknown name in EXPORT_NAME, and more options or bytes than any honest negotiation takes.
/// Source: NBD protocol document, "Handshake phase", "Option types".
package struct ServerHandshake: Sendable {
    /// What to do after sending what was written to the output.
    package enum Verdict: Hashable, Sendable {
        /// Wait for more bytes.
        case needsMore
        /// Send what is in the output, then encrypt, then call `tlsStarted`. Bytes that have arrived already are a reason to close.
        case startTLS
        /// Bytes that follow are requests.
        case transmission(NBDSession)
        /// Send what is in the output, then close. The text says why, for the log.
        case close(String)
    }

    private enum State {
        case clientFlags
        case options
        /// The rest of a payload that was answered already; bytes still to be dropped.
        case skipping(Int)
        case ended
    }

    private var state: State = .clientFlags
    private var clientFlags: NBDClientFlags = []
    private var replyStyle = NBDSession.ReplyStyle.simple
    private var selectedContexts: (exportName: String, contexts: [MetaContext])?
    private var optionCount = 0
    private var byteCount = 0
    private var encryption: Encryption

    /// What a server does about TLS.
    package enum Encryption: Sendable, Hashable {
        case none
        /// Nothing but the wish for TLS is heard before it is there.
        case required
        case active
    }

    package init(encryption: Encryption = .none) { self.encryption = encryption }

    /// The connection is encrypted now. Whatever was agreed on in clear is forgotten: somebody else may have said it.
    package mutating func tlsStarted() {
        encryption = .active
        replyStyle = .simple
        selectedContexts = nil
    }

    /// Says hello. Called once, before anything is fed.
    package func greet(_ output: inout HandshakeOutput) {
        output.append(NBDMagic.greeting)
        output.append(NBDMagic.option)
        let flags: NBDHandshakeFlags = [.fixedNewstyle, .noZeroes]
        output.append(flags.rawValue)
    }

    /// Takes as much of `bytes` as can be understood so far, at most one option.
    /// - Parameter bytes: everything that has arrived and was not consumed yet.
    /// - Returns: how many bytes to drop from the front, and what to do next. `needsMore` with bytes consumed means: call again.
    package mutating func consume(_ bytes: RawSpan, exports: some ExportDirectory, _ output: inout HandshakeOutput) -> (consumed: Int, Verdict) {
        switch state {
        case .clientFlags:
            guard let flags: UInt32 = try? bytes.bigEndian(at: 0) else { return (0, .needsMore) }
            clientFlags = NBDClientFlags(rawValue: flags)
            guard clientFlags.isSubset(of: .known) else {
                return (4, end("the client sent unknown flags 0x\(String(flags, radix: 16))"))
            }
            state = .options
            return (4, .needsMore)
        case .skipping(let rest):
            let dropped = min(rest, bytes.byteCount)
            state = dropped == rest ? .options : .skipping(rest - dropped)
            return (dropped, .needsMore)
        case .options:
            return consumeOption(bytes, exports, &output)
        case .ended:
            return (0, .close("the handshake is over"))
        }
    }

    private mutating func end(_ reason: String) -> Verdict {
        state = .ended
        return .close(reason)
    }

    private mutating func consumeOption(_ bytes: RawSpan, _ exports: some ExportDirectory, _ output: inout HandshakeOutput) -> (Int, Verdict) {
        guard bytes.byteCount >= OptionFrame.encodedSize else { return (0, .needsMore) }
        let frame: OptionFrame
        do { frame = try OptionFrame(decoding: bytes) } catch { return (0, end("\(error)")) }
        let size = frame.payloadByteCount

        // Decided from the header alone, before anything is waited for or kept.
        if !clientFlags.contains(.fixedNewstyle), frame.option != .exportName {
            return (OptionFrame.encodedSize, end("option \(frame.option.rawValue) from a client without fixed newstyle"))
        }
        if frame.option == .exportName, size > NBDLimit.stringByteCount {
            return (OptionFrame.encodedSize, end("an export name of \(size) bytes"))
        }
        if byteCount + OptionFrame.encodedSize + size > NBDLimit.negotiationByteCount || optionCount == NBDLimit.optionCount {
            return (OptionFrame.encodedSize, end("negotiation takes too long"))
        }
        if encryption == .required, frame.option != .startTLS, frame.option != .abort {
            // EXPORT_NAME has no way to be refused.
            if frame.option == .exportName { return (OptionFrame.encodedSize, end("an export was asked for without TLS")) }
            byteCount += OptionFrame.encodedSize + size
            optionCount += 1
            output.refuse(frame.option, .tlsRequired, "this server talks over TLS only")
            if size > 0 { state = .skipping(size) }
            return (OptionFrame.encodedSize, .needsMore)
        }
        let isWanted = Self.understood.contains(frame.option) || (frame.option == .startTLS && encryption != .none)
        if isWanted, size <= NBDLimit.optionPayloadByteCount, bytes.byteCount - OptionFrame.encodedSize < size { return (0, .needsMore) }

        byteCount += OptionFrame.encodedSize + size
        optionCount += 1
        guard isWanted, size <= NBDLimit.optionPayloadByteCount else {
            if isWanted {
                output.refuse(frame.option, .tooBig, "an option payload of \(size) bytes is longer than \(NBDLimit.optionPayloadByteCount)")
            } else if frame.option == .startTLS {
                output.refuse(frame.option, .policy, "this server was started without TLS")
            } else {
                output.refuse(frame.option, .unsupported, "option \(frame.option.rawValue) is not supported")
            }
            if size > 0 { state = .skipping(size) }
            return (OptionFrame.encodedSize, .needsMore)
        }
        let whole = OptionFrame.encodedSize + size
        let verdict = answer(frame.option, bytes.extracting(OptionFrame.encodedSize..<whole), exports, &output)
        return (whole, verdict)
    }

    /// The options whose payload is looked at.
    private static let understood: Set<NBDOption> = [.exportName, .abort, .list, .info, .go, .structuredReply, .extendedHeaders, .listMetaContext, .setMetaContext]

    private mutating func answer(
        _ option: NBDOption, _ payload: RawSpan, _ exports: some ExportDirectory, _ output: inout HandshakeOutput
    ) -> Verdict {
        if payload.byteCount > 0, [.abort, .list, .structuredReply, .extendedHeaders, .startTLS].contains(option) {
            output.refuse(option, .invalid, "option \(option.rawValue) takes no payload")
            return .needsMore
        }
        do throws(DecodingFailure) {
            switch option {
            case .exportName:
                return enter(exportNamed: try String(wireBytes: payload, what: "export name"), exports, &output)
            case .abort:
                output.reply(to: option, .acknowledged)
                return end("the client gave up")
            case .list:
                list(exports, &output)
            case .startTLS where encryption == .active:
                output.refuse(option, .invalid, "TLS is in use already")
            case .startTLS:
                output.reply(to: option, .acknowledged)
                return .startTLS
            case .structuredReply where replyStyle == .extended:
                output.refuse(option, .extendedHeadersRequired, "extended headers have been agreed on already")
            case .structuredReply:
                replyStyle = .structured
                output.reply(to: option, .acknowledged)
            case .extendedHeaders:
                replyStyle = .extended
                output.reply(to: option, .acknowledged)
            case .info, .go:
                return describe(option, try ExportQuery(decoding: payload), exports, &output)
            default:
                answerMetaContexts(option, try MetaContextQuery(decoding: payload), exports, &output)
            }
            return .needsMore
        } catch {
            // EXPORT_NAME is the one option that has no way to say no.
            if option == .exportName { return end("\(error)") }
            if option == .setMetaContext { selectedContexts = nil }
            output.refuse(option, .invalid, "\(error)")
            return .needsMore
        }
    }

    private func list(_ exports: some ExportDirectory, _ output: inout HandshakeOutput) {
        for export in exports.listing {
            var payload = HandshakeOutput()
            let name = export.name.wirePrefix
            payload.append(UInt32(name.utf8.count))
            payload.append(name)
            if let description = export.description { payload.append(description.wirePrefix) }
            output.reply(to: .list, .server, payload)
        }
        output.reply(to: .list, .acknowledged)
    }

    private mutating func enter(exportNamed name: String, _ exports: some ExportDirectory, _ output: inout HandshakeOutput) -> Verdict {
        guard let export = exports.export(named: name) else { return end("there is no export named '\(name)'") }
        let session = session(for: export, askedAs: name)
        output.append(UInt64(session.export.byteCount))
        output.append(session.export.flags.rawValue)
        if !clientFlags.contains(.noZeroes) { output.appendZeroes(124) }
        state = .ended
        return .transmission(session)
    }

    private mutating func describe(
        _ option: NBDOption, _ query: ExportQuery, _ exports: some ExportDirectory, _ output: inout HandshakeOutput
    ) -> Verdict {
        guard let export = exports.export(named: query.name) else {
            output.refuse(option, .unknownExport, "there is no export named '\(query.name)'")
            return .needsMore
        }
        let session = session(for: export, askedAs: query.name)
        let sizes = export.blockSizes
        // A client that does not ask for block sizes may assume 512-byte blocks at worst; it need not know smaller ones, but must hear of larger.
        if sizes.minimum > 512, !query.requests.contains(.blockSize) {
            output.refuse(option, .blockSizeRequired, "this export needs requests in blocks of \(sizes.minimum) bytes")
            return .needsMore
        }
        if query.requests.contains(.name) { information(option, .name, &output) { $0.append(export.name.wirePrefix) } }
        if query.requests.contains(.description), let text = export.description {
            information(option, .description, &output) { $0.append(text.wirePrefix) }
        }
        if query.requests.contains(.blockSize) {
            information(option, .blockSize, &output) {
                $0.append(UInt32(clamping: sizes.minimum))
                $0.append(UInt32(clamping: sizes.preferred))
                $0.append(UInt32(clamping: sizes.maximum))
            }
        }
        information(option, .export, &output) {
            $0.append(UInt64(session.export.byteCount))
            $0.append(session.export.flags.rawValue)
        }
        output.reply(to: option, .acknowledged)
        if option == .info { return .needsMore }
        state = .ended
        return .transmission(session)
    }

    private func information(_ option: NBDOption, _ type: NBDInfoType, _ output: inout HandshakeOutput, _ fill: (inout HandshakeOutput) -> Void) {
        var payload = HandshakeOutput()
        payload.append(type.rawValue)
        fill(&payload)
        output.reply(to: option, .info, payload)
    }

    private mutating func answerMetaContexts(
        _ option: NBDOption, _ query: MetaContextQuery, _ exports: some ExportDirectory, _ output: inout HandshakeOutput
    ) {
        let isSet = option == .setMetaContext
        if isSet { selectedContexts = nil }  // whatever comes of this one, the older choice is gone
        guard replyStyle != .simple else {
            output.refuse(option, .invalid, "metadata contexts need structured replies")
            return
        }
        guard let export = exports.export(named: query.exportName) else {
            output.refuse(option, .unknownExport, "there is no export named '\(query.exportName)'")
            return
        }
        var found: [MetaContext] = []
        if !isSet, query.queries.isEmpty { found = export.metaContexts }
        for text in query.queries {
            for context in export.metaContexts where context.isMeant(by: text, wildcards: !isSet) && !found.contains(context) { found.append(context) }
        }
        for context in found {
            var payload = HandshakeOutput()
            payload.append(isSet ? context.identifier : 0)
            payload.append(context.name)
            output.reply(to: option, .metaContext, payload)
        }
        output.reply(to: option, .acknowledged)
        if isSet { selectedContexts = (query.exportName, found) }
    }

    /// Contexts count only for the export that they were chosen for.
    private func session(for export: ExportDescription, askedAs name: String) -> NBDSession {
        var export = export
        if replyStyle != .simple { export.flags.insert(.sendDF) }
        if replyStyle == .extended { export.flags.insert(.blockStatusPayload) }
        var session = NBDSession(export: export, replyStyle: replyStyle)
        if let selectedContexts, selectedContexts.exportName == name { session.metaContexts = selectedContexts.contexts }
        return session
    }
}
