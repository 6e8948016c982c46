import IOCore
import StorageSchema
import StrataBase

/// The way of a write that could not be done at once. Callers have checked the range and the permission.
enum WritePipeline {
    /// Zeroes that a driver cannot write by itself are written from a buffer of this many bytes.
    private static let zeroBufferSize = 1 << 20

    static func write(_ node: BlockNode, _ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        // A flag that the driver does not know is kept from it; FUA becomes a flush at the end.
        let passed = flags.intersection(supportedFlags(node).union(.alreadyTried))
        if flags.contains(.compressed), !passed.contains(.compressed) {
            throw BlockError(.unsupported, "Block node '\(node.name)' (\(node.formatName)) does not support compressed writes")
        }
        if node.requestAlignment > 1 {
            try await writeAligned(node, source, at: offset, flags: passed)
        } else {
            node.faultObserving?.reached(.pwritev)
            try await writeSplit(node, source, at: offset, flags: passed)
        }
        node.faultObserving?.reached(.pwritevDone)
        try await emulateForceUnitAccess(node, flags, passed)
    }

    /// A node that ignores flushes has no use for FUA either.
    private static func supportedFlags(_ node: BlockNode) -> RequestFlags {
        node.options.ignoresFlushes ? node.driver.supportedWriteFlags.subtracting(.forceUnitAccess) : node.driver.supportedWriteFlags
    }

    private static func emulateForceUnitAccess(_ node: BlockNode, _ flags: RequestFlags, _ passed: RequestFlags) async throws(BlockError) {
        if flags.contains(.forceUnitAccess), !passed.contains(.forceUnitAccess), !node.options.ignoresFlushes { try await node.flushing?.flush() }
    }

    private static func writeSplit(_ node: BlockNode, _ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        let limit = node.limits.maxTransfer
        if source.byteCount <= limit { return try await node.driver.write(source, at: offset, flags: flags) }
        let piece = limit.roundedDown(to: node.requestAlignment)
        var done = 0
        while done < source.byteCount {
            let count = min(piece, source.byteCount - done)
            try await node.driver.write(source.slice(at: done, byteCount: count), at: offset + done, flags: flags)
            done += count
        }
    }

    /// On a node with an alignment every write is entered in the serializer, so that one that has to read its surroundings first (below)
    /// sees none change under it.
    private static func writeAligned(_ node: BlockNode, _ source: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        let alignment = node.requestAlignment
        let start = offset.roundedDown(to: alignment)
        let end = (offset + source.byteCount).roundedUp(to: alignment)
        Trace.bdrvSerialiseBegin(node: node.name, offset: start.rawValue, bytes: end - start)
        let id = await node.serializer.enter(GuestRange(start, byteCount: end - start))
        Trace.bdrvSerialiseEnd(node: node.name, offset: start.rawValue, bytes: end - start)
        defer { node.serializer.leave(id) }
        if end - start == source.byteCount, source.isAligned(to: node.limits.memoryAlignment) {
            node.faultObserving?.reached(.pwritev)
            return try await writeSplit(node, source, at: offset, flags: flags)
        }
        Trace.bdrvWritePadded(node: node.name, offset: offset.rawValue, bytes: source.byteCount, alignment: alignment)
        let bounce = IOBuffer(byteCount: end - start)
        defer { withExtendedLifetime(bounce) {} }
        let last = end - alignment
        let (padsHead, padsTail) = (start < offset, offset + source.byteCount < end)
        // One unit at both ends is read once and counts as both.
        let isOneUnit = padsHead && padsTail && last == start
        if padsHead {
            node.faultObserving?.reached(.pwritevRmwHead)
            if isOneUnit { node.faultObserving?.reached(.pwritevRmwTail) }
            try await readUnit(node, bounce.vector(at: 0, byteCount: alignment), at: start)
            node.faultObserving?.reached(.pwritevRmwAfterHead)
            if isOneUnit { node.faultObserving?.reached(.pwritevRmwAfterTail) }
        }
        if padsTail, !isOneUnit {
            node.faultObserving?.reached(.pwritevRmwTail)
            try await readUnit(node, bounce.vector(at: last - start, byteCount: alignment), at: last)
            node.faultObserving?.reached(.pwritevRmwAfterTail)
        }
        bounce.vector(at: offset - start, byteCount: source.byteCount).copy(from: source)
        node.faultObserving?.reached(.pwritev)
        try await writeSplit(node, bounce.vector, at: start, flags: flags)
    }

    private static func readUnit(_ node: BlockNode, _ target: IOVector, at offset: GuestOffset) async throws(BlockError) {
        if offset.rawValue >= node.length { return target.zero() }
        try await ReadPipeline.readSplit(node, target, at: offset, flags: [])
    }

    /// Keeps what changes data without being a write apart from unaligned writes, which would write back what they have read before.
    private static func serialized(
        _ node: BlockNode, _ range: GuestRange, _ body: () async throws(BlockError) -> Support
    ) async throws(BlockError) -> Support {
        if node.requestAlignment == 1 { return try await body() }
        let start = range.start.roundedDown(to: node.requestAlignment)
        let id = await node.serializer.enter(GuestRange(start, byteCount: range.end.roundedUp(to: node.requestAlignment) - start))
        defer { node.serializer.leave(id) }
        return try await body()
    }

    // MARK: Copies

    /// A write whose data are in a host file. The range consists of whole units.
    static func copy(
        _ node: BlockNode, _ driver: any CopyRanging, _ source: HostFileSpan, at offset: GuestOffset, flags: RequestFlags
    ) async throws(BlockError) -> Support {
        let passed = flags.intersection(supportedFlags(node).union(.sharedOnly))
        let outcome = try await serialized(node, GuestRange(offset, byteCount: source.byteCount)) { () async throws(BlockError) in
            try await driver.copyRange(from: source, to: offset, flags: passed)
        }
        if outcome == .done { try await emulateForceUnitAccess(node, flags, passed) }
        return outcome
    }

    // MARK: Zeroes

    static func writeZeroes(_ node: BlockNode, _ range: GuestRange, flags: RequestFlags) async throws(BlockError) {
        let passed = flags.intersection(supportedFlags(node).union([.mayUnmap, .noFallback]))
        var zeroFlags = passed
        if !node.options.discardsUnmap { zeroFlags.remove(.mayUnmap) }
        node.faultObserving?.reached(.pwritevZero)
        try await forEachPiece(of: range, alignment: node.limits.zeroAlignment, limit: node.limits.maxZero) { piece throws(BlockError) in
            // What is not made of whole units is written as data, with what surrounds it, like any write; that is little, so that it counts as fast.
            let isAligned = piece.isAligned(to: node.requestAlignment)
            if isAligned, let driver = node.zeroWriting, try await serialized(node, piece, { () async throws(BlockError) in try await driver.writeZeroes(piece, flags: zeroFlags) }) == .done { return }
            if isAligned, flags.contains(.noFallback) {
                throw BlockError(.unsupported, "Block node '\(node.name)' (\(node.formatName)) has no fast way to write zeroes")
            }
            try await writeZeroBuffer(node, piece, flags: passed.subtracting([.mayUnmap, .noFallback]))
        }
        node.faultObserving?.reached(.pwritevDone)
        try await emulateForceUnitAccess(node, flags, passed)
    }

    private static func writeZeroBuffer(_ node: BlockNode, _ range: GuestRange, flags: RequestFlags) async throws(BlockError) {
        Trace.bdrvZeroesAsData(node: node.name, offset: range.start.rawValue, bytes: range.byteCount)
        let buffer = IOBuffer(zeroed: min(range.byteCount, zeroBufferSize))
        defer { withExtendedLifetime(buffer) {} }
        var done = 0
        while done < range.byteCount {
            let count = min(buffer.byteCount, range.byteCount - done)
            let source = buffer.vector(at: 0, byteCount: count)
            if node.requestAlignment > 1 {
                try await writeAligned(node, source, at: range.start + done, flags: flags)
            } else {
                try await writeSplit(node, source, at: range.start + done, flags: flags)
            }
            done += count
        }
    }

    // MARK: Discards

    static func discard(_ node: BlockNode, _ range: GuestRange) async throws(BlockError) {
        guard let driver = node.discarding else { return }
        let alignment = max(node.limits.discardAlignment, 1)
        let start = range.start.rawValue.dividedRoundingUp(by: alignment) * alignment
        // The last unit of a node may be shorter than the others.
        let end = range.end.rawValue >= node.length ? range.end.rawValue : range.end.rawValue / alignment * alignment
        var position = start
        while position < end {
            let count = min(end - position, node.limits.maxDiscard)
            let piece = GuestRange(GuestOffset(position), byteCount: count)
            do throws(BlockError) {
                if try await serialized(node, piece, { () async throws(BlockError) in try await driver.discard(piece) }) == .unsupported {
                    node.statistics.failedToDiscard()
                    return
                }
            } catch {
                node.statistics.failedToDiscard()
                throw error
            }
            node.statistics.discarded(byteCount: count)
            position += count
        }
    }

    /// Cuts a range at multiples of `alignment`: what sticks out at either end comes as a piece of its own.
    private static func forEachPiece(
        of range: GuestRange, alignment: Int, limit: Int, _ body: (GuestRange) async throws(BlockError) -> Void
    ) async throws(BlockError) {
        var position = range.start.rawValue
        let end = range.end.rawValue
        while position < end {
            var count = min(end - position, limit)
            let misplaced = position % alignment
            if misplaced != 0 {
                count = min(count, alignment - misplaced)
            } else if count > alignment {
                count = count / alignment * alignment
            }
            try await body(GuestRange(GuestOffset(position), byteCount: count))
            position += count
        }
    }
}
