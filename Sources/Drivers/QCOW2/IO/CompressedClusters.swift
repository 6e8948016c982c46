import BlockGraph
import IOCore
import StrataBase
import Synchronization

/// A compressed cluster after expansion. Its bytes do not change once it is made.
struct DecompressedCluster: Sendable {
    let entry: L2Entry
    let guestCluster: Int
    let buffer: IOBuffer
}

extension QCOW2Driver {
    /// Reads part of one compressed cluster. The cluster read last is kept, so that small sequential reads expand it once.
    func readCompressed(_ entry: L2Entry, _ target: IOVector, at offset: GuestOffset) async throws(BlockError) {
        if copyDecompressed(entry, target, at: offset) { return }
        guard opened.header.compressionType == 0 else { throw BlockError(.unsupported, "qcow2 compression type zstd is not supported") }
        guard case .compressed(let data) = entry.meaning(in: geometry, version: opened.header.version) else { return }
        // The last sector of the file may be missing its end; streams may be shorter than the sectors that hold them.
        let available = min(data.byteCount, file.length - data.offset.rawValue)
        guard available > 0 else {
            throw BlockError(.corruptImage, "the compressed cluster for guest offset \(offset) lies at \(data.offset), beyond the end of the file")
        }
        let input = IOBuffer(byteCount: available)
        try await file.read(input.vector, at: data.offset.asGuest)
        let output = IOBuffer(byteCount: geometry.clusterSize)
        do { try Inflate.expand(input, into: output) } catch { throw error.during("reading guest offset \(offset)") }
        lastDecompressed.withLock {
            $0 = DecompressedCluster(entry: entry, guestCluster: offset.rawValue >> geometry.clusterBits, buffer: output)
        }
        copy(output, target, at: offset)
    }

    /// Serves a read from the cluster that was expanded last, if it is that one.
    func copyDecompressed(_ entry: L2Entry, _ target: IOVector, at offset: GuestOffset) -> Bool {
        let buffer = lastDecompressed.withLock { last -> IOBuffer? in
            guard let last, last.entry == entry, last.guestCluster == offset.rawValue >> geometry.clusterBits else { return nil }
            return last.buffer
        }
        guard let buffer else { return false }
        copy(buffer, target, at: offset)
        return true
    }

    private func copy(_ cluster: IOBuffer, _ target: IOVector, at offset: GuestOffset) {
        let start = offset.rawValue & (geometry.clusterSize - 1)
        target.copy(from: cluster.vector(at: start, byteCount: target.byteCount))
    }
}
