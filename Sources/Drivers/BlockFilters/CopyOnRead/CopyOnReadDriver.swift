package import BlockGraph
package import IOCore
package import StorageSchema
package import StrataBase

/// Copies what is read from a backing file into the image above it (`driver=copy-on-read`), so that it is read from there the next time.
///
/// Readers see no difference. A copy is a `write-unchanged`: it needs no permission to change data. It must not undo a write that comes between
/// its reading and its writing, so copies exclude what overlaps them here (`RangeLocks`), and nobody else may write below the filter.
package final class CopyOnReadDriver: FilterDriver, ChainFreezing {
    package static let formatName = "copy-on-read"

    package let file: BlockChild
    /// The last node of the chain whose data is copied; nil for all.
    private let bottom: BlockNode?
    /// Only a chain that stays what it is has a bottom.
    package let frozenBottom: String?
    private let locks = RangeLocks()

    /// The most that is copied at once, in bytes.
    private static let longestCopy = 1 << 20

    package static func open(_ options: BlockdevOptions, _ opener: NodeOpener) async throws(BlockError) -> any BlockDriver {
        guard case .copyOnRead(let own) = options.branch else { throw BlockError(.invalidArgument, "options of another driver were given to 'copy-on-read'") }
        let file = try await opener.openChild(own.file, as: "file", role: [.filtered, .primary])
        guard let name = own.bottom else { return CopyOnReadDriver(file, bottom: nil, frozenBottom: nil) }
        guard let bottom = opener.node(named: name) else { throw BlockError(.notFound, "Bottom node '\(name)' not found") }
        if bottom.kind == .filter { throw BlockError(.invalidArgument, "Bottom node '\(name)' is a filter") }
        var node: BlockNode? = file.node
        while let current = node, current !== bottom { node = current.chainChild?.node }
        if node == nil { throw BlockError(.invalidArgument, "Bottom node '\(name)' is not in the chain below node '\(opener.nodeName)'") }
        // The node whose image it is stands for the whole chain, as in QEMU.
        return CopyOnReadDriver(file, bottom: bottom === Self.image(below: file) ? nil : bottom, frozenBottom: name)
    }

    private init(_ file: BlockChild, bottom: BlockNode?, frozenBottom: String?) {
        self.file = file
        self.bottom = bottom
        self.frozenBottom = frozenBottom
    }

    package func permissions(for role: ChildRole, parents: PermissionGrant, isReadOnly: Bool) -> PermissionGrant {
        // A node that nobody uses copies nothing, and is nobody's rival.
        if parents.used.isEmpty { return parents }
        var grant = parents
        grant.used.formUnion([.consistentRead, .writeUnchanged])
        grant.shared.remove(.write)
        return grant
    }

    /// The first node below that is not a filter: the image that copies go into.
    private static func image(below file: BlockChild) -> BlockNode {
        var node = file.node
        while node.kind == .filter, let below = node.chainChild?.node { node = below }
        return node
    }

    // MARK: Reading

    package func tryRead(_ target: IOVector, at offset: GuestOffset) -> Bool {
        let range = GuestRange(offset, byteCount: target.byteCount)
        guard !range.isEmpty, range.end.rawValue <= length, let status = file.tryBlockStatus(of: range, precise: false), status.flags.contains(.allocated),
            status.byteCount >= range.byteCount
        else { return false }
        return file.tryRead(target, at: offset)
    }

    package func read(_ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        var done = 0
        while done < target.byteCount {
            let rest = GuestRange(offset + done, byteCount: target.byteCount - done)
            let (count, wantsCopy) = try await look(at: rest)
            let part = target.slice(at: done, byteCount: count)
            if wantsCopy {
                try await copy(GuestRange(rest.start, byteCount: count), to: part, isPrivate: flags.contains(.prefetch))
            } else {
                try await file.read(part, at: rest.start, flags: flags)
            }
            done += count
        }
    }

    /// How far the beginning of a range is all to be copied or all not.
    private func look(at range: GuestRange) async throws(BlockError) -> (byteCount: Int, wantsCopy: Bool) {
        let inside = min(range.byteCount, length - range.start.rawValue)
        if inside <= 0 { return (range.byteCount, false) }
        var range = GuestRange(range.start, byteCount: inside)
        var node = file.node
        var isImage = true
        while true {
            let (byteCount, isAllocated) = try await status(of: node, range)
            range.byteCount = min(range.byteCount, byteCount)
            if node.kind != .filter {
                if isAllocated { return (range.byteCount, !isImage) }
                // Not even the last one that counts has it: it stays where it is.
                if let bottom, node === bottom { return (range.byteCount, false) }
                isImage = false
            } else if isAllocated, node.chainChild == nil {
                return (range.byteCount, false)
            }
            guard let below = node.chainChild?.node else { return (range.byteCount, !isImage && bottom == nil) }
            let left = below.length - range.start.rawValue
            // A shorter backing file: zeroes, which are copied like data. It lies above the bottom or is it.
            if left <= 0 { return (range.byteCount, !isImage) }
            range.byteCount = min(range.byteCount, left)
            node = below
        }
    }

    private func status(of node: BlockNode, _ range: GuestRange) async throws(BlockError) -> (Int, isAllocated: Bool) {
        // The edge would do for the first node; for those below only the node itself can be asked.
        let status = try await node.status(of: range, precise: false)
        return (status.byteCount, status.flags.contains(.allocated))
    }

    /// Reads a range and writes it into the image, unless somebody else has just done so.
    /// - Parameter isPrivate: nobody else has the memory while we use it.
    private func copy(_ range: GuestRange, to target: IOVector, isPrivate: Bool) async throws(BlockError) {
        var done = 0
        while done < range.byteCount {
            let piece = GuestRange(range.start + done, byteCount: min(range.byteCount - done, Self.longestCopy))
            try await copyPiece(piece, to: target.slice(at: done, byteCount: piece.byteCount), isPrivate: isPrivate)
            done += piece.byteCount
        }
    }

    private func copyPiece(_ piece: GuestRange, to target: IOVector, isPrivate: Bool) async throws(BlockError) {
        Trace.copyOnReadBegin(offset: piece.start.rawValue, bytes: piece.byteCount)
        defer { Trace.copyOnReadEnd(offset: piece.start.rawValue, bytes: piece.byteCount) }
        let lock = await locks.enter(piece, isCopy: true)
        defer { locks.leave(lock) }
        // While we waited another reader may have copied it, or a writer overwritten it.
        let (count, stillWantsCopy) = try await look(at: piece)
        try await file.read(target, at: piece.start)
        // Above this filter there may be a job's that asks for nothing while the chain is being committed: reading goes on, copying has to wait.
        guard stillWantsCopy, !file.permissions.isDisjoint(with: [.write, .writeUnchanged]) else { return }
        let copied = target.slice(at: 0, byteCount: count)
        if copied.isZero {
            try await file.writeZeroes(GuestRange(piece.start, byteCount: count), flags: .writeUnchanged)
        } else if isPrivate {
            try await file.write(copied, at: piece.start, flags: .writeUnchanged)
        } else {
            // The reader's memory may change under us while we write: what goes into the image has to be what was read.
            let stable = IOBuffer(byteCount: count)
            defer { withExtendedLifetime(stable) {} }
            stable.vector.copy(from: copied)
            try await file.write(stable.vector, at: piece.start, flags: .writeUnchanged)
        }
    }

    // MARK: Writing: not while a copy of the same bytes is on its way

    package func tryWrite(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) -> Bool {
        guard let lock = locks.tryEnter(GuestRange(offset, byteCount: source.byteCount), isCopy: false) else { return false }
        defer { locks.leave(lock) }
        return file.tryWrite(source, at: offset, flags: flags)
    }

    package func write(_ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        let lock = await locks.enter(GuestRange(offset, byteCount: source.byteCount), isCopy: false)
        defer { locks.leave(lock) }
        try await file.write(source, at: offset, flags: flags)
    }

    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        let lock = await locks.enter(range, isCopy: false)
        defer { locks.leave(lock) }
        try await file.writeZeroes(range, flags: flags)
        return .done
    }

    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        let lock = await locks.enter(range, isCopy: false)
        defer { locks.leave(lock) }
        try await file.discard(range)
        return .done
    }
}
