package import BlockGraph
package import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

/// Shows its image unchanged and makes chosen requests fail (`driver=blkdebug`), or makes the image look as if it had other limits.
///
/// Rules come from the options and from a file, and are armed by the points of a request that the parent reports (`FaultObserving`). Nothing is
/// answered at once here: the parent's report and the request that follows it must come in pairs.
package final class BlkdebugDriver: BlockDriver, FaultObserving, Flushing, ZeroWriting, Discarding, Resizing, StatusReporting, Reopening {
    package static let formatName = "blkdebug"
    package static let kind = DriverKind.filter

    private let image: BlockChild
    private let nodeName: String
    private let sizes: BlkdebugLimits
    private let rules: Mutex<BlkdebugRules>
    let breakpoints = BlkdebugBreakpoints()
    /// What the file of rules said when the node was opened; the options add theirs.
    private let fromFile: BlkdebugRuleList
    private let reopening: Mutex<Reopen>

    private struct Reopen: Sendable {
        /// The options' rules that are in force.
        var current: BlkdebugRuleList
        /// Those that a reopen prepares.
        var next: (list: BlkdebugRuleList, rules: BlkdebugRules)?
    }
    private let taken: BlockPermissions
    private let unshared: BlockPermissions
    package let limits: BlockLimits

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .blkdebug(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'blkdebug'") }
        var fromFile = BlkdebugRuleList()
        if let path = own.config, !path.isEmpty {
            let file = try BlkdebugConfigFile(reading: path)
            fromFile = BlkdebugRuleList(injections: file.injections, changes: file.changes)
        }
        let sizes = try BlkdebugLimits(own)
        let rules = try BlkdebugRules(fromFile + BlkdebugRuleList(own))
        let image = try await opener.openChild(own.image, as: "image", role: [.filtered, .primary])
        return BlkdebugDriver(image, opener.nodeName, sizes, rules, fromFile, own)
    }

    private init(
        _ image: BlockChild, _ nodeName: String, _ sizes: BlkdebugLimits, _ rules: BlkdebugRules, _ fromFile: BlkdebugRuleList,
        _ options: BlockdevOptionsBlkdebug
    ) {
        self.image = image
        self.nodeName = nodeName
        self.sizes = sizes
        self.rules = Mutex(rules)
        self.fromFile = fromFile
        reopening = Mutex(Reopen(current: BlkdebugRuleList(options)))
        taken = BlockPermissions(options.takeChildPerms ?? [])
        unshared = BlockPermissions(options.unshareChildPerms ?? [])
        limits = sizes.blockLimits
    }

    package var length: Int { image.length }
    package var children: [BlockChild] { [image] }
    package var supportedWriteFlags: RequestFlags { image.node.driver.supportedWriteFlags }

    package func reached(_ point: BlkdebugEvent) {
        rules.withLock { $0.reach(point) }
        breakpoints.reach(point)
    }

    /// Holds a request up that has met a breakpoint, and throws what an armed rule wants it to fail with.
    private func enter(_ kind: BlkdebugRules.RequestKinds, at offset: GuestOffset, byteCount: Int) async throws(BlockError) {
        await breakpoints.pause()
        try check(kind, at: offset, byteCount: byteCount)
    }

    private func check(_ kind: BlkdebugRules.RequestKinds, at offset: GuestOffset, byteCount: Int) throws(BlockError) {
        guard let number = rules.withLock({ $0.failure(of: kind, at: offset.rawValue, byteCount: byteCount) }) else { return }
        var error = BlockError(errno: number, "A rule of blkdebug node '\(nodeName)' failed the request")
        // Whoever asked for a certain number gets it.
        if error.errno != number { error.code = .system(number) }
        throw error
    }

    // MARK: Requests

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        try await enter(.read, at: offset, byteCount: target.byteCount)
        try await image.read(target, at: offset, flags: flags.subtracting(.alreadyTried))
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        try await enter(.write, at: offset, byteCount: source.byteCount)
        try await image.write(source, at: offset, flags: flags.subtracting(.alreadyTried))
    }

    package func flush() async throws(BlockError) {
        try await enter(.flush, at: GuestOffset(0), byteCount: 0)
        image.reached(.flushToDisk)
        try await image.flush()
    }

    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        if range.byteCount < sizes.zeroUnit { return .unsupported }
        try await enter(.writeZeroes, at: range.start, byteCount: range.byteCount)
        try await image.writeZeroes(range, flags: flags)
        return .done
    }

    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        if range.byteCount < sizes.discardUnit { return .unsupported }
        try await enter(.discard, at: range.start, byteCount: range.byteCount)
        try await image.discard(range)
        return .done
    }

    package func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        try await image.resize(to: byteCount, exact: exact, preallocation: preallocation)
    }

    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        try await enter(.blockStatus, at: range.start, byteCount: range.byteCount)
        return try await image.statusOfSameBytes(range, precise: precise)
    }

    // MARK: Permissions

    package func permissions(for role: ChildRole, parents: PermissionGrant, isReadOnly: Bool) -> PermissionGrant {
        PermissionGrant(used: parents.used.union(taken), shared: parents.shared.subtracting(unshared))
    }

    package func preparePermissions(_ grant: PermissionGrant) async throws(BlockError) {
        try limits.check(grant, length: length)
    }

    // MARK: Reopening: with other rules, from the first state on

    package static let changeableOptions: Set<String> = ["inject-error", "set-state"]

    package func stageReopen(_ request: ReopenRequest) throws(BlockError) {
        guard case .blkdebug(let own) = request.options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'blkdebug'") }
        let list = BlkdebugRuleList(own)
        // A reopen that says the same lets the rules be where they are.
        if reopening.withLock({ $0.current == list }) { return }
        let rules = try BlkdebugRules(fromFile + list)
        reopening.withLock { $0.next = (list, rules) }
    }

    package func commitReopen() async {
        let next = reopening.withLock { state -> BlkdebugRules? in
            guard let next = state.next.take() else { return nil }
            state.current = next.list
            return next.rules
        }
        if let next { rules.withLock { $0 = next } }
    }

    package func abortReopen() async { reopening.withLock { $0.next = nil } }
}

extension BlockPermissions {
    fileprivate init(_ names: [BlockPermission]) {
        self = []
        for name in names {
            switch name {
            case .consistentRead: insert(.consistentRead)
            case .write: insert(.write)
            case .writeUnchanged: insert(.writeUnchanged)
            case .resize: insert(.resize)
            }
        }
    }
}
