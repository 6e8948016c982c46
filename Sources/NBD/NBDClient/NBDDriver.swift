package import BlockGraph
package import IOCore
import ManagedObjects
import NBDProtocol
package import StorageSchema
package import StrataBase
import Synchronization

/// A disk that an NBD server exports (`driver=nbd`).
///
/// What the server offers decides what the node can do; what it does not offer the pipeline emulates. With a `reconnect-delay` requests outlive
/// the server's restart. With `multi-conn` above 1 and a server that allows it, requests are spread over several connections.
/// Source: NBD protocol document; QEMU's documentation of the options of the nbd driver.
package final class NBDDriver: BlockDriver, Flushing, ZeroWriting, Discarding, StatusReporting, Resizing, Reopening {
    package static let formatName = "nbd"
    package static let kind = DriverKind.protocol

    private let links: [ServerLink]
    private let next = Atomic<Int>(0)
    private let address: ServerAddress
    private let exportName: String
    private let flags: NBDTransmissionFlags
    private let hasStatus: Bool
    /// The context is not `base:allocation` but one that the user named: its flags are handed on as they are.
    private let hasOwnContext: Bool
    /// That context counts layers: all from the second on are told alike.
    private let tellsDepth: Bool
    private let shared: SharedSize
    /// The delay that a reopen prepares.
    private let candidate = Mutex<Duration?>(nil)
    package let limits: BlockLimits

    /// The size, which may grow when the server comes back with a larger export.
    private final class SharedSize: Sendable {
        let byteCount: Atomic<Int>
        init(_ byteCount: Int) { self.byteCount = Atomic(byteCount) }
    }

    /// The server says how long the disk is.
    package func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        if exact, byteCount != length { throw BlockError(.unsupported, "Cannot resize NBD nodes") }
        if byteCount > length { throw BlockError(.unsupported, "Cannot grow NBD nodes") }
    }

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .nbd(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'nbd'") }
        guard let context = IOContext.current else { preconditionFailure("nodes are opened on an I/O context") }
        let address = try ServerAddress(own.server)
        let size = SharedSize(-1)
        let first = Mutex<NBDClientSession?>(nil)
        var security: ClientSecurity?
        if let id = own.tlsCreds {
            let use = try opener.objects.useTLSCredentials(id, forServer: false, by: "node '\(opener.nodeName)'")
            security = ClientSecurity(use: use, hostName: own.tlsHostname ?? address.hostName)
        } else if own.tlsHostname != nil {
            throw BlockError(.invalidArgument, "Parameter 'tls-hostname' needs 'tls-creds'")
        }
        // The protocol's limit: a server may hang up on longer ones.
        if (own.export ?? "").utf8.count > NBDLimit.stringByteCount { throw BlockError(.invalidArgument, "export name too long to send to server") }
        if (own.xDirtyBitmap ?? "").utf8.count > NBDLimit.stringByteCount { throw BlockError(.invalidArgument, "x-dirty-bitmap query too long to send to server") }
        let wishes = ClientHandshake.Wishes(exportName: own.export ?? "", metaContext: own.xDirtyBitmap ?? "base:allocation", usesTLS: security != nil)
        let settings = ServerLink.Settings(
            address: address, wishes: wishes, security: security, reconnectDelay: .seconds(Int64(own.reconnectDelay ?? 0)),
            accepts: { session throws(BlockError) in
                guard let before = first.withLock({ $0 }) else { return }
                try session.check(replaces: before, byteCount: size.byteCount.load(ordering: .relaxed))
                size.byteCount.max(session.byteCount, ordering: .relaxed)
            })
        let link = ServerLink(settings, context: context)
        let session = try await link.open(patience: .seconds(Int64(own.openTimeout ?? 0)))
        var links = [link]
        do throws(BlockError) {
            size.byteCount.store(session.byteCount, ordering: .relaxed)
            first.withLock { $0 = session }
            if own.xDirtyBitmap != nil, session.metaContextID == nil {
                throw BlockError(.invalidArgument, "requested x-dirty-bitmap \(own.xDirtyBitmap ?? "") not found")
            }
            if session.flags.contains(.readOnly), !opener.options.isReadOnly, !opener.options.isAutoReadOnly {
                throw BlockError(.accessDenied, "Could not open image: Permission denied", hint: "The server offers the export read-only: open it with read-only=on or auto-read-only=on.")
            }
            let wanted = session.flags.contains(.canMultiConn) ? Int(own.multiConn ?? 1) : 1
            while links.count < min(max(wanted, 1), maximumConnections) {
                let more = ServerLink(settings, context: context)
                _ = try await more.open(patience: .zero)
                links.append(more)
            }
        } catch {
            for link in links { await link.close() }
            throw error
        }
        return NBDDriver(links, address, session, wishes, hasOwnContext: own.xDirtyBitmap != nil, size)
    }

    /// More connections than this to one export help nobody.
    private static let maximumConnections = 64

    private init(
        _ links: [ServerLink], _ address: ServerAddress, _ session: NBDClientSession, _ wishes: ClientHandshake.Wishes, hasOwnContext: Bool, _ size: SharedSize
    ) {
        self.links = links
        self.address = address
        exportName = wishes.exportName
        flags = session.flags
        hasStatus = session.metaContextID != nil
        self.hasOwnContext = hasOwnContext
        tellsDepth = wishes.metaContext == "qemu:allocation-depth"
        shared = size
        // A server that does not say may insist on sectors only if the export is one of whole sectors, which a client can keep to as well.
        let sizes = session.blockSizes ?? NBDBlockSizes(minimum: session.byteCount.isMultiple(of: 512) ? 512 : 1, preferred: 4096)
        let longest = min(sizes.maximum, NBDLimit.payloadByteCount).roundedDown(to: sizes.minimum)
        // Lengths have 32 bits without extended headers.
        let longestRange = session.replyStyle == .extended ? 1 << 40 : Int(UInt32.max).roundedDown(to: max(sizes.minimum, 4096))
        limits = BlockLimits(
            requestAlignment: sizes.minimum, maxTransfer: longest, zeroAlignment: sizes.minimum, discardAlignment: sizes.minimum,
            maxZero: longestRange, maxDiscard: longestRange, optimalTransfer: sizes.preferred)
    }

    package var length: Int { shared.byteCount.load(ordering: .relaxed) }
    package var filename: String? { address.uri(export: exportName) }
    package var supportedWriteFlags: RequestFlags { flags.contains(.sendFUA) ? .forceUnitAccess : [] }

    /// Requests go round the connections. A flush on any of them covers the writes that were answered on all: the server has promised that.
    private var link: ServerLink {
        links.count == 1 ? links[0] : links[next.add(1, ordering: .relaxed).oldValue.magnitude.remainder(links.count)]
    }

    // MARK: Requests

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        if flags.contains(.prefetch), self.flags.contains(.sendCache) {
            return try await carryOut(ClientRequest(command: .cache, offset: offset.rawValue, byteCount: target.byteCount))
        }
        try await carryOut(ClientRequest(command: .read, offset: offset.rawValue, byteCount: target.byteCount, memory: target))
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        try await carryOut(
            ClientRequest(command: .write, flags: forced(flags), offset: offset.rawValue, byteCount: source.byteCount, memory: source))
    }

    package func flush() async throws(BlockError) {
        if flags.contains(.sendFlush) { try await carryOut(ClientRequest(command: .flush)) }
    }

    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        guard self.flags.contains(.sendWriteZeroes) else { return .unsupported }
        var commandFlags = forced(flags)
        if !flags.contains(.mayUnmap) { commandFlags.insert(.noHole) }
        if flags.contains(.noFallback) {
            guard self.flags.contains(.sendFastZero) else { return .unsupported }
            commandFlags.insert(.fastZero)
        }
        return try await attempt(ClientRequest(command: .writeZeroes, flags: commandFlags, offset: range.start.rawValue, byteCount: range.byteCount))
    }

    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        guard flags.contains(.sendTrim) else { return .unsupported }
        return try await attempt(ClientRequest(command: .trim, offset: range.start.rawValue, byteCount: range.byteCount))
    }

    private func forced(_ flags: RequestFlags) -> NBDCommandFlags { flags.contains(.forceUnitAccess) ? .forceUnitAccess : [] }

    /// A request that the server may say it cannot do.
    private func attempt(_ request: ClientRequest) async throws(BlockError) -> Support {
        let outcome = try await link.perform(request)
        if case .failed(let failure) = outcome {
            if failure.errorNumber == NBDErrorCode.notSupported.rawValue { return .unsupported }
            throw error(failure, request)
        }
        return .done
    }

    private func carryOut(_ request: ClientRequest) async throws(BlockError) {
        if case .failed(let failure) = try await link.perform(request) { throw error(failure, request) }
    }

    private func error(_ failure: ClientTransmission.Failure, _ request: ClientRequest) -> BlockError {
        let text = failure.text.isEmpty ? "" : " (server reported: \(failure.text))"
        // Numbers that the protocol does not know are no better than "invalid".
        let code = NBDErrorCode(rawValue: failure.errorNumber) ?? .invalid
        let number: Int32 =
            switch code {
            case .notPermitted: 1
            case .io: 5
            case .noMemory: 12
            case .invalid: 22
            case .noSpace: 28
            case .overflow: 75
            case .notSupported: 95
            case .shutdown: 108
            }
        return BlockError(errno: number, "NBD server \(address) failed a \(request.command) of \(request.byteCount) bytes at offset \(request.offset)\(text)")
    }

    // MARK: Status

    package func tryBlockStatus(of range: GuestRange, precise: Bool) -> BlockStatus? {
        hasStatus ? nil : BlockStatus(byteCount: range.byteCount, flags: [.data, .allocated, .offsetValid], offset: range.start.asHost)
    }

    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        if let known = tryBlockStatus(of: range, precise: precise) { return known }
        let alignment = limits.requestAlignment
        let start = range.start.roundedDown(to: alignment)
        let end = min(range.end.rawValue.roundedUp(to: alignment), length)
        let request = ClientRequest(
            command: .blockStatus, flags: .requestOne, offset: start.rawValue, byteCount: min(end - start.rawValue, limits.maxZero))
        switch try await link.perform(request) {
        case .extent(let byteCount, let flags):
            let inside = min(byteCount - (range.start - start), range.byteCount)
            guard inside > 0 else {
                throw BlockError(.connection, "NBD server \(address) answered block status with an extent that is not a multiple of its block size")
            }
            return BlockStatus(byteCount: inside, flags: meaning(of: flags), offset: range.start.asHost)
        case .failed(let failure): throw error(failure, request)
        case .done, .lost: throw BlockError(.connection, "NBD server \(address) answered block status with nothing")
        }
    }

    private func meaning(of flags: UInt32) -> BlockStatus.Flags {
        let state = NBDAllocationState(rawValue: tellsDepth ? min(flags, 2) : flags)
        if hasOwnContext {
            // The bits of any context are told as those of base:allocation would be, as QEMU tells them: tools that read dirty bitmaps rely on that.
            var told: BlockStatus.Flags = state.contains(.hole) ? [] : .data
            if state.contains(.zero) { told.insert(.zero) }
            return told.isEmpty ? [] : told.union([.allocated, .offsetValid])
        }
        if state.contains(.zero) { return state.contains(.hole) ? [.zero, .allocated, .offsetValid] : [.data, .zero, .allocated, .offsetValid] }
        // A hole that does not read as zeroes has to be read.
        return [.data, .allocated, .offsetValid]
    }

    // MARK: Permissions and the end

    package func obstacleToWriting() async -> BlockError? {
        guard flags.contains(.readOnly) else { return nil }
        return BlockError(.readOnly, "NBD server \(address) offers export '\(exportName)' read-only, so that it cannot be written to")
    }

    package func preparePermissions(_ grant: PermissionGrant) async throws(BlockError) {
        if grant.used.isDisjoint(with: [.write, .writeUnchanged, .resize]) { return }
        if let obstacle = await obstacleToWriting() { throw obstacle }
    }

    // MARK: Reopening: another patience with the server, which stays the same

    package static let changeableOptions: Set<String> = ["reconnect-delay", "open-timeout"]

    package func stageReopen(_ request: ReopenRequest) throws(BlockError) {
        guard case .nbd(let own) = request.options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'nbd'") }
        if flags.contains(.readOnly), !request.nodeOptions.isReadOnly, !request.nodeOptions.isAutoReadOnly {
            throw BlockError(.accessDenied, "Can't reopen read-only NBD mount as read/write", hint: "The server offers the export read-only.")
        }
        candidate.withLock { $0 = .seconds(Int64(own.reconnectDelay ?? 0)) }
    }

    package func commitReopen() async {
        guard let delay = candidate.withLock({ $0.take() }) else { return }
        for link in links { link.setReconnectDelay(delay) }
    }

    package func abortReopen() async { candidate.withLock { $0 = nil } }

    package func close() async throws(BlockError) {
        for link in links { await link.close() }
    }
}

extension NBDClientSession {
    /// Whether requests made for the session `before` can go on in this one.
    fileprivate func check(replaces before: NBDClientSession, byteCount: Int) throws(BlockError) {
        func refuse(_ what: String) -> BlockError { BlockError(.invalidArgument, "The NBD server came back with another export: \(what)") }
        if self.byteCount < byteCount { throw refuse("it has \(self.byteCount) bytes and had \(byteCount)") }
        let lost = before.flags.subtracting(flags).subtracting([.rotational, .sendResize, .blockStatusPayload, .sendDF, .hasFlags])
        if !lost.isEmpty { throw refuse("it can do less (transmission flags 0x\(String(flags.rawValue, radix: 16)), before 0x\(String(before.flags.rawValue, radix: 16)))") }
        if flags.contains(.readOnly), !before.flags.contains(.readOnly) { throw refuse("it is read-only now") }
        if let sizes = blockSizes, sizes.minimum > (before.blockSizes?.minimum ?? 512) || sizes.maximum < (before.blockSizes?.maximum ?? NBDLimit.payloadByteCount) {
            throw refuse("its blocks have another size")
        }
        // Requests were cut to what lengths can be; shorter ones would not be understood as they are.
        if before.replyStyle == .extended, replyStyle != .extended { throw refuse("its requests have short lengths now") }
        if before.metaContextID != nil, metaContextID == nil { throw refuse("it does not tell block status any more") }
    }
}

extension UInt {
    fileprivate func remainder(_ count: Int) -> Int { Int(self % UInt(count)) }
}
