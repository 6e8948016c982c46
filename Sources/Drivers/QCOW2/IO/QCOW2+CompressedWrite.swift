package import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization

// Writes that are stored compressed. A guest cluster is compressed by itself; what does not become shorter is written as it is. Clusters of one
// request, and of several, are compressed at the same time, and take their places in the order in which they are ready.

extension QCOW2Driver: CompressedWriting {
    package var compressionUnit: Int? { geometry.hasExternalData ? nil : geometry.clusterSize }
    package var supportedWriteFlags: RequestFlags { geometry.hasExternalData ? [] : .compressed }

    /// One call of a worker compresses about this much: small clusters together, so that waking it is worth it. Bytes.
    private var batchBytes: Int { max(geometry.clusterSize, 64 << 10) }
    /// Batches of one request that are on their way at once.
    private static let batchesAtOnce = 16
    /// Bounds the memory of one request, in bytes.
    private static let bytesAtOnce = 8 << 20

    /// Writes whole clusters, compressed. The last cluster of the disk may end with the disk.
    /// - Throws: `.invalidArgument` for any other part of a cluster.
    func writeCompressed(_ source: IOVector, at offset: GuestOffset) async throws(BlockError) {
        let end = offset + source.byteCount
        guard offset.isAligned(to: geometry.clusterSize), end.isAligned(to: geometry.clusterSize) || end.rawValue == length else {
            throw BlockError(.invalidArgument, "Compressed data is written in whole clusters of \(geometry.clusterSize) bytes: \(source.byteCount) bytes at \(offset) are not")
        }
        let window = max(batchBytes, min(Self.batchesAtOnce * batchBytes, Self.bytesAtOnce))
        var done = 0
        while done < source.byteCount {
            let count = min(window, source.byteCount - done)
            try await writeWindow(source.slice(at: done, byteCount: count), at: offset + done)
            done += count
        }
    }

    private func writeWindow(_ source: IOVector, at offset: GuestOffset) async throws(BlockError) {
        let batch = batchBytes
        if source.byteCount <= batch { return try await writeBatch(source, at: offset) }
        let failure = await withTaskGroup(of: BlockError?.self) { group in
            for start in stride(from: 0, to: source.byteCount, by: batch) {
                let part = source.slice(at: start, byteCount: min(batch, source.byteCount - start))
                group.addTask {
                    do throws(BlockError) { try await self.writeBatch(part, at: offset + start) } catch { return error }
                    return nil
                }
            }
            var first: BlockError?
            for await failure in group where first == nil { first = failure }
            return first
        }
        if let failure { throw failure }
    }

    private func writeBatch(_ source: IOVector, at offset: GuestOffset) async throws(BlockError) {
        // A copy: what is read while it is compressed must not change, and the last cluster is filled up with zeroes.
        let data = IOBuffer(byteCount: source.byteCount.roundedUp(to: geometry.clusterSize))
        defer { withExtendedLifetime(data) {} }
        data.vector(at: 0, byteCount: source.byteCount).copy(from: source)
        data.vector(at: source.byteCount, byteCount: data.byteCount - source.byteCount).zero()
        let units = await CompressionWorkers.compress(data, unit: geometry.clusterSize, opened.header.streamFormat)
        defer { withExtendedLifetime(units) {} }
        for (number, streamLength) in units.lengths.enumerated() {
            let start = number << geometry.clusterBits
            if let streamLength, try await store(units.buffer.vector(at: start, byteCount: streamLength), at: offset + start) { continue }
            try await writePlain(data.vector(at: start, byteCount: min(geometry.clusterSize, source.byteCount - start)), at: offset + start)
        }
    }

    /// Writes one stream and makes the mapping name it.
    /// - Returns: false when it would lie beyond what the mapping can name; nothing is changed then.
    private func store(_ stream: IOVector, at guest: GuestOffset) async throws(BlockError) -> Bool {
        let byteCount = stream.byteCount
        file.reached(.clusterAllocBytes)
        let taken = try await step { state throws(Obstacle) in try state.reserveCompressed(at: guest, byteCount: byteCount, inFlight) }
        guard let reservation = taken else { return false }
        let host = reservation.data.offset
        do {
            file.reached(.writeCompressed)
            Trace.qcow2CompressedWrite(file: file.node.name, guest: guest.rawValue, host: host.rawValue, bytes: byteCount)
            try await file.write(stream, at: host.asGuest)
            let waiters = try await step { state throws(Obstacle) in try state.publish(reservation) }
            forgetDecompressed(guest)
            finish(reservation, waiters)
        } catch {
            finish(reservation, state.withLock { $0.cancel(reservation) })
            throw error
        }
        return true
    }

    private func finish(_ reservation: CompressedReservation, _ waiters: [CheckedContinuation<Void, Never>]) {
        inFlight.leave(reservation.ticket)
        for waiter in waiters { waiter.resume() }
    }
}
