import BlockGraph
import IOCore
import StrataBase
import Synchronization

extension QCOW2Driver {
    /// Stops all writes to an image that contradicts itself and, if it was being written, says so in its header.
    /// - Returns: the error for the request that found it.
    func signalCorruption(_ contradiction: Contradiction) async -> BlockError {
        let error = BlockError(.corruptImage, contradiction.message)
        let (mustMark, isNews) = state.withLock { state in
            let isNews = !state.hasToldOfCorruption
            state.hasToldOfCorruption = true
            if state.isCorrupt || !state.isReadyForWrites { return (false, isNews) }
            state.isCorrupt = true
            return (true, isNews)
        }
        if isNews || mustMark { announceCorruption?(contradiction, mustMark) }
        guard mustMark, opened.header.version >= 3 else { return error }
        do {
            // A dirty mark may have gone since the header was read.
            let marks = state.withLock({ $0.hasExactRefcounts }) ? opened.header.incompatible.subtracting(.dirty) : opened.header.incompatible
            try await writeHeaderBytes(at: QCOW2Header.Field.incompatible, marks.union(.corrupt).rawValue)
            try await file.flush()
        } catch {
            // The mark is a courtesy to the next user; this one is told of the corruption itself.
        }
        return error
    }

    /// Overwrites one number in the header. Fields never straddle a sector, so this is atomic on every disk.
    func writeHeaderBytes<each I: FixedWidthInteger>(at position: Int, _ values: repeat each I) async throws(BlockError) {
        var bytes: [UInt8] = []
        for value in repeat each values {
            let start = bytes.count
            bytes += [UInt8](repeating: 0, count: value.bitWidth / 8)
            bytes.setBigEndian(value, at: start)
        }
        let buffer = IOBuffer(copying: bytes)
        do { try await file.write(buffer.vector, at: GuestOffset(position)) } catch { throw error.during("updating the qcow2 header") }
    }
}
