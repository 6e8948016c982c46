import BlockGraph
import IOCore
import Synchronization

// Images that nobody uses let go of their caches (`cache-clean-interval`).

extension QCOW2Driver {
    /// Looks after every interval whether the caches were used in it.
    func scheduleCacheCleaning() {
        guard options.cacheCleanInterval > 0, let context = IOContext.current else { return }
        context.schedule(after: .seconds(options.cacheCleanInterval)) { [weak self] in
            guard let self else { return }
            cleanCaches()
            scheduleCacheCleaning()
        }
    }

    /// Empties a cache that holds nothing new and was not used since the last time.
    private func cleanCaches() {
        state.withLock { state in
            if state.l2.takeIdleness() {
                state.l2 = L2SliceCache(sliceBits: state.l2.sliceBits, wordBits: state.l2.wordBits, capacity: state.l2.capacity)
            }
            if state.refcounts.cache.takeIdleness() { state.refcounts.cache = RefcountCache(capacity: state.refcounts.cache.capacity) }
        }
    }

    /// What the caches hold at the moment, in bytes.
    package var cachedBytes: Int {
        state.withLock { $0.l2.slotCount << ($0.l2.sliceBits + $0.l2.wordBits + 3) + $0.refcounts.cache.slotCount << geometry.clusterBits }
    }
}
