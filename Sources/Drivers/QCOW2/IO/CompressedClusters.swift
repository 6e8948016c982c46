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
    /// Bytes.
    private static let longestExpandedHere = 64 << 10

    /// Reads one compressed cluster or part of it. The last cluster of which a part was read is kept, so that small sequential reads expand it once.
    func readCompressed(_ entry: L2Entry, _ target: IOVector, at offset: GuestOffset) async throws(BlockError) {
        if copyDecompressed(entry, target, at: offset) { return }
        guard case .compressed(let data) = entry.meaning(in: geometry, version: opened.header.version) else { return }
        // The last sector of the file may be missing its end; streams may be shorter than the sectors that hold them.
        let available = min(data.byteCount, file.length - data.offset.rawValue)
        guard available > 0 else {
            throw BlockError(.corruptImage, "the compressed cluster for guest offset \(offset) lies at \(data.offset), beyond the end of the file")
        }
        let input = IOBuffer(byteCount: available)
        try await file.read(input.vector, at: data.offset.asGuest)
        // Small clusters are expanded sooner than a worker thread is woken.
        let isExpandedHere = geometry.clusterSize <= Self.longestExpandedHere
        if isExpandedHere, target.byteCount == geometry.clusterSize, target.isContiguous {
            do throws(BlockError) { return try opened.header.streamFormat.expand(input, into: target) } catch { throw error.during("reading guest offset \(offset)") }
        }
        let output = IOBuffer(byteCount: geometry.clusterSize)
        do throws(BlockError) {
            if isExpandedHere {
                try opened.header.streamFormat.expand(input, into: output)
            } else {
                try await CompressionWorkers.expand(input, into: output, opened.header.streamFormat)
            }
        } catch { throw error.during("reading guest offset \(offset)") }
        lastDecompressed.withLock {
            $0 = DecompressedCluster(entry: entry, guestCluster: offset.rawValue >> geometry.clusterBits, buffer: output)
        }
        copy(output, target, at: offset)
    }

    /// A guest cluster has got other compressed data, which may lie where the old data lay: then nothing tells the two apart.
    func forgetDecompressed(_ guest: GuestOffset) {
        lastDecompressed.withLock { if $0?.guestCluster == guest.rawValue >> geometry.clusterBits { $0 = nil } }
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
