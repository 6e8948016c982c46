import IOCore
import StrataBase

/// The way of a read that could not be answered at once: padded to the node's alignment, moved to aligned memory where the driver needs
/// that, cut to the driver's limit.
enum ReadPipeline {
    /// - Precondition: the range lies inside the node and is not empty.
    static func read(_ node: BlockNode, _ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        let alignment = node.requestAlignment
        if alignment > 1, !GuestRange(offset, byteCount: target.byteCount).isAligned(to: alignment) || !target.isAligned(to: node.limits.memoryAlignment) {
            return try await readPadded(node, target, at: offset, flags: flags)
        }
        try await readSplit(node, target, at: offset, flags: flags)
    }

    static func readSplit(_ node: BlockNode, _ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        let limit = node.limits.maxTransfer
        if target.byteCount <= limit { return try await node.driver.read(target, at: offset, flags: flags) }
        let piece = limit.roundedDown(to: node.requestAlignment)
        var done = 0
        while done < target.byteCount {
            let count = min(piece, target.byteCount - done)
            try await node.driver.read(target.slice(at: done, byteCount: count), at: offset + done, flags: flags)
            done += count
        }
    }

    /// Reads whole units into memory of our own and hands on what was asked for.
    private static func readPadded(_ node: BlockNode, _ target: IOVector, at offset: GuestOffset, flags: RequestFlags) async throws(BlockError) {
        let start = offset.roundedDown(to: node.requestAlignment)
        let end = (offset + target.byteCount).roundedUp(to: node.requestAlignment)
        Trace.bdrvReadPadded(node: node.name, offset: offset.rawValue, bytes: target.byteCount, alignment: node.requestAlignment)
        let bounce = IOBuffer(byteCount: end - start)
        defer { withExtendedLifetime(bounce) {} }
        try await readSplit(node, bounce.vector, at: start, flags: flags)
        target.copy(from: bounce.vector(at: offset - start, byteCount: target.byteCount))
    }
}
