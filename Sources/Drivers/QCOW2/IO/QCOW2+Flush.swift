package import BlockGraph
import IOCore
import StorageSchema
package import StrataBase
import Synchronization

extension QCOW2Driver: Flushing {
    package func flush() async throws(BlockError) {
        file.reached(.flushToOs)
        try await commit(.durable)
    }

    /// Data only: metadata is written when it has to be, in its order.
    package func startWriteback() { dataFile.startWriteback() }

    /// Nothing is left to do for a flush but to flush the file: true for an image that has not been written to.
    package func close() async throws(BlockError) {
        try await settleBitmaps()
        guard state.withLock({ $0.isReadyForWrites }) else { return }
        try await settle()
        try await cutFile()
        try await file.flush()
    }

    /// Brings everything to the file, the refcounts of what was freed on the way included. A refcount table that had grown leaves its old place in the
    /// very commit that moves it, so that one more round is needed to free that; rounds are bounded because freeing never makes a table grow.
    private func settle() async throws(BlockError) {
        for _ in 0..<4 {
            try await commit(.durable)
            try await settleRefcounts()
            if state.withLock({ $0.frees.isEmpty }) { return }
        }
    }

    /// Brings refcounts to the file: no request is running, so everything that was freed can become free.
    func settleRefcounts() async throws(BlockError) {
        await commits.lock()
        defer { commits.unlock() }
        try await reclaim()
        try await writeRefcounts()
    }

    /// Gives back what `growFile` took ahead of need.
    private func cutFile() async throws(BlockError) {
        // The last cluster that was there may have been cut short, and written to the end since.
        let end = state.withLock { max($0.refcounts.highestEnd, initialFileLength.roundedUp(to: geometry.clusterSize)) }
        if file.length <= end { return }
        do { try await file.resize(to: end) } catch {
            // A longer file is as good an image.
        }
    }

    /// Brings everything to the file, if the image was written to at all. Afterwards nothing in the caches differs from it.
    func settleIfWritten() async throws(BlockError) {
        if state.withLock({ $0.isReadyForWrites }) { try await settle() }
    }

    /// A parent gives up writing: everything goes to disk while the file below may still be written.
    package func preparePermissions(_ grant: PermissionGrant) async throws(BlockError) {
        if grant.used.isDisjoint(with: [.write, .writeUnchanged, .resize]), state.withLock({ $0.isReadyForWrites }) {
            try await settle()
        }
        if grant.used.isDisjoint(with: [.write, .writeUnchanged, .resize]) { try await settleBitmaps() }
    }

    /// Stores the bitmaps, as long as the file may still be written.
    func settleBitmaps() async throws(BlockError) {
        guard file.permissions.contains(.write), !state.withLock({ $0.isCorrupt }) else { return }
        try await storeBitmaps()
        try await settleIfWritten()
    }
}
