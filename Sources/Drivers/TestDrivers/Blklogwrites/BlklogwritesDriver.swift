package import BlockGraph
package import IOCore
package import StorageSchema
package import StrataBase

/// Shows a node and keeps a log of every change to it (`driver=blklogwrites`), from which the disk can be replayed up to any point.
///
/// Changes go one at a time, each to the node and then to the log: whatever the order in which a guest's overlapping writes took effect, the log
/// has them in the same order. That is worth more here than speed.
package final class BlklogwritesDriver: BlockDriver, Flushing, ZeroWriting, Discarding, Resizing, StatusReporting, Reopening, @unchecked Sendable {
    // unchecked: `log` and `hasChanges` are used under `order`, `candidate` only while the graph is changed.

    package static let formatName = "blklogwrites"
    package static let kind = DriverKind.filter

    private let file: BlockChild
    private let logNode: BlockChild
    /// Held across a change and its entry; nothing else is locked under it.
    private let order = AsyncMutex()
    private var log: WriteLog
    /// Entries since the last flush entry. A flush of nothing is no entry.
    private var hasChanges = false
    /// What a reopen prepares.
    private var candidate: (updateInterval: UInt64, isReadOnly: Bool)?
    package let limits: BlockLimits

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .blklogwrites(let own) = options.branch else {
            throw BlockError(.invalidArgument, "options of another driver were given to 'blklogwrites'")
        }
        let appends = own.logAppend ?? false
        if appends, own.logSectorSize != nil { throw BlockError(.invalidArgument, "log-append and log-sector-size are mutually exclusive") }
        let interval = try Self.updateInterval(own)
        let file = try await opener.openChild(own.file, as: "file", role: [.filtered, .primary])
        let logNode = try await opener.openChild(own.log, as: "log", role: .metadata)
        // An empty log can be continued too: it begins.
        let log =
            if appends, logNode.length > 0 {
                try await WriteLog(appendingTo: logNode, updateInterval: interval)
            } else {
                try WriteLog(newIn: logNode, sectorSize: own.logSectorSize ?? 512, updateInterval: interval)
            }
        return BlklogwritesDriver(file, logNode, log)
    }

    private static func updateInterval(_ own: BlockdevOptionsBlklogwrites) throws(BlockError) -> UInt64 {
        let interval = own.logSuperUpdateInterval ?? 4096
        guard interval > 0 else { throw BlockError(.invalidArgument, "Invalid log superblock update interval \(interval)") }
        return interval
    }

    private init(_ file: BlockChild, _ logNode: BlockChild, _ log: WriteLog) {
        self.file = file
        self.logNode = logNode
        self.log = log
        let unit = log.sectorSize
        limits = BlockLimits(requestAlignment: unit, zeroAlignment: unit, discardAlignment: unit)
    }

    package var length: Int { file.length }
    package var children: [BlockChild] { [file, logNode] }
    // Without FUA: a log has a flush in its place, as QEMU's.
    package var supportedWriteFlags: RequestFlags { [] }

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool { !file.observesFaultPoints && file.tryRead(target, at: offset) }

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        try await file.read(target, at: offset, flags: flags.subtracting(.alreadyTried))
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        let flags = flags.subtracting(.alreadyTried)
        try await record(GuestRange(offset, byteCount: source.byteCount), [], data: source) {
            () async throws(BlockError) in try await file.write(source, at: offset, flags: flags)
        }
    }

    /// Logged as a write of zeroes: the log has no shorter way to say it.
    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        // What is no whole unit comes again as data, padded.
        guard range.isAligned(to: limits.requestAlignment) else { return .unsupported }
        try await record(range, [], data: nil) {
            () async throws(BlockError) in try await file.writeZeroes(range, flags: flags)
        }
        return .done
    }

    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        guard range.isAligned(to: limits.requestAlignment) else { return .unsupported }
        try await record(range, .discard, data: nil) { () async throws(BlockError) in try await file.discard(range) }
        return .done
    }

    private func record(
        _ range: GuestRange, _ flags: WriteLogEntry.Flags, data: IOVector?, _ change: () async throws(BlockError) -> Void
    ) async throws(BlockError) {
        let unit = limits.requestAlignment
        let entry = WriteLogEntry(sector: UInt64(range.start.rawValue / unit), sectorCount: UInt64(range.byteCount / unit), flags: flags)
        try await order.withLock { () async throws(BlockError) in
            try await change()
            hasChanges = true
            try await log.append(entry, data: data)
        }
    }

    package func flush() async throws(BlockError) {
        try await order.withLock { () async throws(BlockError) in
            file.reached(.flushToDisk)
            try await file.flush()
            guard hasChanges else { return }
            try await log.append(WriteLogEntry(sector: 0, sectorCount: 0, flags: .flush), data: nil)
            try await log.writeSuperblock()
            hasChanges = false
        }
    }

    /// A closed log counts all of its entries.
    package func close() async throws(BlockError) {
        if hasChanges { try await flush() }
    }

    package func resize(to byteCount: Int, exact: Bool, preallocation: PreallocMode) async throws(BlockError) {
        try await file.resize(to: byteCount, exact: exact, preallocation: preallocation)
    }

    package func blockStatus(of range: GuestRange, precise: Bool) async throws(BlockError) -> BlockStatus {
        try await file.statusOfSameBytes(range, precise: precise)
    }

    // MARK: Permissions

    package func permissions(for role: ChildRole, parents: PermissionGrant, isReadOnly: Bool) -> PermissionGrant {
        guard role.contains(.metadata) else { return DefaultPermissions.grant(kind: Self.kind, role: role, parents: parents, isReadOnly: isReadOnly) }
        // The log grows with every entry, and nobody else may write in between. A node that nobody can write to makes no entries.
        return PermissionGrant(used: isReadOnly ? .consistentRead : [.consistentRead, .write, .resize], shared: [.consistentRead, .writeUnchanged])
    }

    package func preparePermissions(_ grant: PermissionGrant) async throws(BlockError) {
        try limits.check(grant, length: length)
    }

    // MARK: Reopening

    package static let changeableOptions: Set<String> = ["log-super-update-interval"]

    package func stageReopen(_ request: ReopenRequest) throws(BlockError) {
        guard case .blklogwrites(let own) = request.options.branch else {
            throw BlockError(.invalidArgument, "options of another driver were given to 'blklogwrites'")
        }
        candidate = (try Self.updateInterval(own), request.nodeOptions.isReadOnly)
    }

    /// The superblock of a log that can no longer be written to counts all of its entries.
    package func prepareReopen() async throws(BlockError) {
        if candidate?.isReadOnly == true, hasChanges { try await flush() }
    }

    package func commitReopen() async {
        if let candidate { log.updateInterval = candidate.updateInterval }
        candidate = nil
    }

    package func abortReopen() async { candidate = nil }
}
