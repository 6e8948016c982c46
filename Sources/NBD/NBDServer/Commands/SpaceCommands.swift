import BlockGraph
import NBDProtocol
import StrataBase

// Requests that change what is stored without sending data.

extension ServerConnection {
    func trim(_ frame: RequestFrame) async throws(BlockError) {
        if !frame.range.isEmpty { try await backend.discard(frame.range) }
        // Discarding has no flag of its own for durability.
        if writeFlags(frame).contains(.forceUnitAccess) { try await backend.flush() }
        replyDone(to: frame)
    }

    func writeZeroes(_ frame: RequestFrame) async throws(BlockError) {
        var flags = writeFlags(frame)
        if !frame.flags.contains(.noHole) { flags.insert(.mayUnmap) }
        if frame.flags.contains(.fastZero) { flags.insert(.noFallback) }
        if !frame.range.isEmpty { try await backend.writeZeroes(frame.range, flags: flags) }
        replyDone(to: frame)
    }
}
