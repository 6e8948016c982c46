package import BlockGraph
package import IOCore
package import StorageSchema
package import StrataBase

/// Keeps the same disk on several children and lets them vote (`driver=quorum`).
///
/// A request succeeds when at least `vote-threshold` children have done it, and read the same. Who failed or disagreed is reported by QMP events.
/// Requests go to all children at once; a read with `read-pattern=fifo` goes to one after the other until one can answer.
package final class QuorumDriver: BlockDriver, Flushing, ZeroWriting, StatusReporting, MemberHolding, Reopening, @unchecked Sendable {
    // unchecked: `children`, `rules` and `candidate` change only while no request runs on the node.

    package static let formatName = "quorum"
    package static let kind = DriverKind.format

    let nodeName: String
    package private(set) var children: [BlockChild]
    /// What the next child will be called: numbers grow, except that the last one is given again when its bearer leaves.
    private var nextNumber: Int
    private var rules: Rules
    /// The rules that a reopen prepares.
    private var candidate: Rules?
    private let events: GraphEvents
    /// Overlapping requests are carried out one after the other: in every child the same one is last, no vote sees half a write, and nobody is
    /// corrected with what has been overwritten meanwhile.
    private let serializer = RequestSerializer()

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .quorum(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'quorum'") }
        let rules = try Rules(own)
        var children: [BlockChild] = []
        for (index, reference) in own.children.enumerated() {
            children.append(try await opener.openChild(reference, as: memberName(index), role: .data))
        }
        try checkLengths(children)
        return QuorumDriver(children, rules, opener)
    }

    private static func checkLengths(_ children: [BlockChild]) throws(BlockError) {
        for child in children where child.length != children[0].length {
            throw BlockError(
                .invalidArgument,
                "Children of a quorum have one length, but node '\(children[0].node.name)' has \(children[0].length) bytes and node '\(child.node.name)' \(child.length)")
        }
    }

    /// How the children vote.
    private struct Rules {
        let threshold: Int
        let isVerifying: Bool
        let rewrites: Bool
        let pattern: QuorumReadPattern

        init(_ own: BlockdevOptionsQuorum) throws(BlockError) {
            try check(own)
            threshold = own.voteThreshold
            pattern = own.readPattern ?? .quorum
            isVerifying = pattern == .quorum && own.blkverify ?? false
            rewrites = pattern == .quorum && own.rewriteCorrupted ?? false
        }
    }

    private static func check(_ own: BlockdevOptionsQuorum) throws(BlockError) {
        guard !own.children.isEmpty else { throw BlockError(.invalidArgument, "Number of provided children must be 1 or more") }
        guard own.voteThreshold >= 1 else { throw BlockError(.invalidArgument, "Parameter 'vote-threshold' expects a value >= 1") }
        guard own.voteThreshold <= own.children.count else { throw BlockError(.invalidArgument, "threshold may not exceed children count") }
        // The two options mean something for reads that compare; with fifo QEMU passes over them.
        guard own.readPattern ?? .quorum == .quorum else { return }
        if own.blkverify == true, own.children.count != 2 || own.voteThreshold != 2 {
            throw BlockError(.invalidArgument, "blkverify=on can only be set if there are exactly two files and vote-threshold is 2")
        }
        if own.blkverify == true, own.rewriteCorrupted == true {
            throw BlockError(.invalidArgument, "rewrite-corrupted=on cannot be used with blkverify=on")
        }
    }

    private init(_ children: [BlockChild], _ rules: Rules, _ opener: NodeOpener) {
        self.children = children
        nextNumber = children.count
        self.rules = rules
        nodeName = opener.nodeName
        events = opener.events
    }

    package var length: Int { children[0].length }
    /// Several files are behind it; none of them names it.
    package var filename: String? { nil }

    // MARK: Reading

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        // Bytes are compared: a child that only brings them near does not do.
        let flags = flags.subtracting([.alreadyTried, .prefetch])
        let turn = await serializer.enter(GuestRange(offset, byteCount: target.byteCount))
        defer { serializer.leave(turn) }
        switch rules.pattern {
        case .quorum: try await readAll(target, at: offset, flags: flags)
        case .fifo: try await readFirst(target, at: offset, flags: flags)
        }
    }

    private func readFirst(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        var last: BlockError?
        for child in children {
            do throws(BlockError) { return try await child.read(target, at: offset, flags: flags) } catch {
                reportBad(child, .read, error, GuestRange(offset, byteCount: target.byteCount))
                last = error
            }
        }
        if let last { throw last }
    }

    private func readAll(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        let range = GuestRange(offset, byteCount: target.byteCount)
        let buffers = children.dropFirst().map { _ in IOBuffer(byteCount: range.byteCount) }
        defer { withExtendedLifetime(buffers) {} }
        let targets = [target] + buffers.map(\.vector)
        let errors = await inEveryChild { index, child throws(BlockError) in try await child.read(targets[index], at: offset, flags: flags) }
        try settle(errors, .read, range)
        let votes = ContentVotes(targets.indices.filter { errors[$0] == nil }.map { ($0, targets[$0]) })
        guard let winner = votes.winner.map({ votes.versions[$0] }) else { return }
        if votes.versions.count > 1, rules.isVerifying { endVerifying(votes, range) }
        if winner.children.count < rules.threshold {
            reportFailure(range)
            throw BlockError(.io, "Too few children of quorum '\(nodeName)' agree on what they have read")
        }
        if votes.versions.count > 1 {
            let losers = votes.versions.flatMap { $0.children == winner.children ? [] : $0.children }.sorted()
            for index in losers { reportBad(children[index], .read, nil, range) }
            if rules.rewrites { await rewrite(losers, with: winner.content, at: offset) }
        }
        // The first child has read into the caller's memory.
        if winner.children.first != 0 { target.copy(from: winner.content) }
    }

    private func endVerifying(_ votes: ContentVotes, _ range: GuestRange) -> Never {
        let difference = votes.versions[0].content.firstDifference(from: votes.versions[1].content) ?? 0
        Mismatch.end("quorum: offset=\(range.start.rawValue) bytes=\(range.byteCount) contents mismatch at offset \(range.start.rawValue + difference)")
    }

    /// Brings children that disagreed back into line. One that cannot be written will disagree again and be reported again.
    private func rewrite(_ losers: [Int], with content: IOVector, at offset: GuestOffset) async {
        for index in losers {
            do throws(BlockError) { try await children[index].write(content, at: offset) } catch {
                reportBad(children[index], .write, error, GuestRange(offset, byteCount: content.byteCount))
            }
        }
    }

    // MARK: Writing

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        let flags = flags.subtracting(.alreadyTried)
        let turn = await serializer.enter(GuestRange(offset, byteCount: source.byteCount))
        defer { serializer.leave(turn) }
        let errors = await inEveryChild { _, child throws(BlockError) in try await child.write(source, at: offset, flags: flags) }
        try settle(errors, .write, GuestRange(offset, byteCount: source.byteCount))
    }

    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        let turn = await serializer.enter(range)
        defer { serializer.leave(turn) }
        let errors = await inEveryChild { _, child throws(BlockError) in try await child.writeZeroes(range, flags: flags) }
        // Nobody has a fast way: the caller may not want another.
        if flags.contains(.noFallback), let first = errors.compactMap(\.self).first, errors.allSatisfy({ $0?.code == .unsupported }) { throw first }
        try settle(errors, .write, range)
        return .done
    }

    package func flush() async throws(BlockError) {
        let errors = await inEveryChild { _, child throws(BlockError) in
            child.reached(.flushToDisk)
            try await child.flush()
        }
        try settle(errors, .flush, GuestRange(GuestOffset(0), byteCount: 0))
    }

    // MARK: Status

    /// Zeroes where all children say so; else data, which is never wrong.
    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        var zeroes = range.byteCount
        var data = 0
        for child in children {
            do throws(BlockError) {
                let status = try await child.blockStatus(of: range, precise: precise)
                if status.flags.contains(.zero) { zeroes = min(zeroes, status.byteCount) } else { data = max(data, status.byteCount) }
            } catch {
                reportBad(child, .read, error, range)
                data = range.byteCount
            }
        }
        return data > 0 ? BlockStatus(byteCount: data, flags: [.data, .allocated]) : BlockStatus(byteCount: zeroes, flags: [.zero, .allocated])
    }

    // MARK: Children that come and go

    package func check(children: [BlockChild]) async throws(BlockError) {
        let threshold = (candidate ?? rules).threshold
        guard children.count >= threshold else {
            throw Self.tooFew(threshold)
        }
        try Self.checkLengths(children)
    }

    package func adopt(children: [BlockChild]) {
        let names = Set(children.map(\.name))
        if names.contains(Self.memberName(nextNumber)) {
            nextNumber += 1
        } else if self.children.contains(where: { $0.name == Self.memberName(nextNumber - 1) }), !names.contains(Self.memberName(nextNumber - 1)) {
            nextNumber -= 1
        }
        self.children = children
    }

    package func newMember() throws(BlockError) -> (name: String, role: ChildRole) {
        if rules.isVerifying { throw BlockError(.invalidArgument, "Cannot add a child to a quorum in blkverify mode") }
        return (Self.memberName(nextNumber), .data)
    }

    package func checkRemoval(ofMember name: String) throws(BlockError) {
        if children.count <= rules.threshold { throw Self.tooFew(rules.threshold) }
    }

    private static func memberName(_ number: Int) -> String { "children.\(number)" }

    private static func tooFew(_ threshold: Int) -> BlockError {
        BlockError(.invalidArgument, "The number of children cannot be lower than the vote threshold \(threshold)")
    }

    // MARK: Permissions

    package func permissions(for role: ChildRole, parents: PermissionGrant, isReadOnly: Bool) -> PermissionGrant {
        var used = parents.used
        if (candidate ?? rules).rewrites, !isReadOnly, used.contains(.consistentRead) { used.insert(.write) }
        // What somebody else writes to one child would be outvoted, and the children have one length for ever.
        return PermissionGrant(used: used, shared: [.consistentRead, .writeUnchanged])
    }

    // MARK: Reopening: with other rules

    package static let changeableOptions: Set<String> = ["vote-threshold", "read-pattern", "blkverify", "rewrite-corrupted"]

    package func stageReopen(_ request: ReopenRequest) throws(BlockError) {
        guard case .quorum(let own) = request.options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'quorum'") }
        candidate = try Rules(own)
    }

    package func commitReopen() async {
        if let candidate { rules = candidate }
        candidate = nil
    }

    package func abortReopen() async { candidate = nil }

    // MARK: Together

    /// Sends a request to every child at the same time.
    /// - Returns: for each child its error, nil where there was none.
    private func inEveryChild(_ request: @escaping @Sendable (Int, BlockChild) async throws(BlockError) -> Void) async -> [BlockError?] {
        await withTaskGroup(of: (Int, BlockError?).self) { group in
            for (index, child) in children.enumerated() {
                group.addTask {
                    do throws(BlockError) {
                        try await request(index, child)
                        return (index, nil)
                    } catch { return (index, error) }
                }
            }
            var errors = [BlockError?](repeating: nil, count: children.count)
            for await (index, error) in group { errors[index] = error }
            return errors
        }
    }

    /// Reports children that failed, and throws when too few are left.
    private func settle(_ errors: [BlockError?], _ operation: QuorumOpType, _ range: GuestRange) throws(BlockError) {
        let failed = errors.compactMap(\.self)
        if failed.isEmpty { return }
        for (child, error) in zip(children, errors) where error != nil { reportBad(child, operation, error, range) }
        guard children.count - failed.count < rules.threshold, let winner = ErrorVotes.winner(failed) else { return }
        // A flush concerns no sectors that could be named.
        if operation != .flush { reportFailure(range) }
        throw winner
    }

    private func reportBad(_ child: BlockChild, _ operation: QuorumOpType, _ error: BlockError?, _ range: GuestRange) {
        events.send(
            QuorumReportBadEvent(
                type: operation, error: error.map { BlockError.text(ofErrno: $0.errno) }, nodeName: child.node.name,
                sectorNum: range.start.rawValue / 512, sectorsCount: range.sectorCount))
    }

    private func reportFailure(_ range: GuestRange) {
        events.send(QuorumFailureEvent(reference: nodeName, sectorNum: range.start.rawValue / 512, sectorsCount: range.sectorCount))
    }
}

extension GuestRange {
    /// How many sectors of 512 bytes the range touches.
    fileprivate var sectorCount: Int { end.rawValue.dividedRoundingUp(by: 512) - start.rawValue / 512 }
}
