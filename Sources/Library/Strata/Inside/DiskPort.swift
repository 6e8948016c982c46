import BlockGraph
import IOCore

/// The requests of one disk, on the storage's I/O thread, with the bytes copied between arrays and I/O buffers.
actor DiskPort: ContextActor {
    nonisolated let context: IOContext
    nonisolated let backend: BlockBackend

    /// Long requests are done in pieces: memory for buffers stays bounded however much a caller asks for. Bytes.
    private static let pieceSize = 1 << 20

    init(_ backend: BlockBackend, context: IOContext) {
        self.backend = backend
        self.context = context
    }

    func read(at offset: Int, count: Int) async throws(BlockError) -> [UInt8] {
        try check(offset, count)
        var bytes = [UInt8](repeating: 0, count: count)
        let buffer = IOBuffer(byteCount: min(count, Self.pieceSize))
        var done = 0
        while done < count {
            let piece = buffer.vector(at: 0, byteCount: min(count - done, Self.pieceSize))
            try await backend.read(piece, at: GuestOffset(offset + done))
            piece.copyOut(into: &bytes, at: done)
            done += piece.byteCount
        }
        withExtendedLifetime(buffer) {}
        return bytes
    }

    func write(_ bytes: [UInt8], at offset: Int) async throws(BlockError) {
        try check(offset, bytes.count)
        let buffer = IOBuffer(byteCount: min(bytes.count, Self.pieceSize))
        var done = 0
        while done < bytes.count {
            let piece = buffer.vector(at: 0, byteCount: min(bytes.count - done, Self.pieceSize))
            piece.copyIn(bytes, from: done)
            try await backend.write(piece, at: GuestOffset(offset + done))
            done += piece.byteCount
        }
        withExtendedLifetime(buffer) {}
    }

    func writeZeroes(at offset: Int, count: Int, mayUnmap: Bool) async throws(BlockError) {
        try check(offset, count)
        try await backend.writeZeroes(GuestRange(GuestOffset(offset), byteCount: count), flags: mayUnmap ? .mayUnmap : [])
    }

    func flush() async throws(BlockError) { try await backend.flush() }

    func blockStatus(at offset: Int, count: Int) async throws(BlockError) -> DiskExtent {
        try check(offset, count)
        guard count > 0 else { throw BlockError(.invalidArgument, "an empty range has no status") }
        let (status, depth, _) = try await backend.blockStatus(of: GuestRange(GuestOffset(offset), byteCount: count))
        return DiskExtent(
            offset: offset, count: status.byteCount, isZero: status.flags.contains(.zero), isData: status.flags.contains(.data),
            isAllocated: status.flags.contains(.allocated), depth: depth)
    }

    /// Before memory is taken for it.
    private func check(_ offset: Int, _ count: Int) throws(BlockError) {
        let (end, overflow) = offset.addingReportingOverflow(count)
        guard !overflow, offset >= 0, count >= 0, end <= backend.length else {
            throw BlockError(.invalidArgument, "\(count) bytes at offset \(offset) are not inside the \(backend.length) bytes of disk '\(backend.node.name)'")
        }
    }
}
