import BlockGraph
import IOCore
import StorageSchema
import StrataBase
import Synchronization

/// How far a commit goes.
enum CommitScope: Sendable {
    /// The mapping is handed to the file below in a safe order; cleans the cache.
    case mapping
    /// Everything acknowledged so far is on stable storage afterwards.
    case durable
}

struct FlushCounter: Sendable {
    var begun = 0
    /// The number of the latest flush that succeeded.
    var completed = 0
}

/// Writing the mapping back. The order is what keeps an image consistent whenever the power fails:
///
/// 1. refcount blocks, a flush where a new block is concerned, then the refcount table that names it;
/// 2. a flush: counts and guest data are on disk before any mapping that names their clusters;
/// 3. the L2 slices as they were when the commit began, whatever has changed since;
/// 4. a flush, then the L1 entries of new tables;
/// 5. for a guest's flush, a flush; then clusters that lost their last mapping become free (`reclaim`).
///
/// A prefix of this order leaves leaked clusters at worst. A write that fails leaves its slice dirty, so nothing acknowledged is forgotten.
extension QCOW2Driver {
    /// Slices that are written between two looks at the refcounts; bounds the memory of a commit.
    private static let slicesPerBatch = 1024

    private struct Cut: Sendable {
        var slots: [Int]
        var l1: [(index: Int, bits: UInt64)]
        var freed: [FreedRun]
        var epoch: Int
    }

    func commit(_ scope: CommitScope) async throws(BlockError) {
        Trace.qcow2CommitBegin(file: file.node.name, scope: "\(scope)")
        defer { Trace.qcow2CommitEnd(file: file.node.name, scope: "\(scope)") }
        let begunBefore = flushCounter.withLock { $0.begun }
        await commits.lock()
        defer { commits.unlock() }
        try await restoreHeader()
        // A flush that began after this request came has done its work.
        if scope == .durable, flushCounter.withLock({ $0.completed > begunBefore }) { return }
        let number = flushCounter.withLock { counter in
            counter.begun += 1
            return counter.begun
        }
        let cut = state.withLock { state in
            let cut = Cut(
                slots: state.l2.dirtySlots(), l1: state.l1OnDisk.keys.sorted().map { ($0, state.l1[$0]) },
                freed: state.frees.takeUnmapped(), epoch: state.epoch)
            inFlight.advance(&state.epoch)
            return cut
        }
        do {
            try await writeMapping(cut)
            if scope == .durable || !cut.freed.isEmpty { try await flushFile() }
        } catch {
            state.withLock { $0.frees.restore(cut.freed) }
            throw error
        }
        if scope == .durable { flushCounter.withLock { $0.completed = number } }
        if !cut.freed.isEmpty { state.withLock { $0.frees.settling.append((cut.epoch, cut.freed)) } }
        try await reclaim()
    }

    /// A flush of the file below. If it fails, what was written may be lost although later flushes succeed: all of it is written again.
    private func flushFile() async throws(BlockError) {
        let wanted = state.withLock { $0.barrierWanted }
        file.reached(.flushToDisk)
        Trace.qcow2FlushBegin(file: file.node.name)
        defer { Trace.qcow2FlushEnd(file: file.node.name) }
        do throws(BlockError) {
            // Guest data has to be there before the mapping that names it.
            try await externalData?.flush()
            try await file.flush()
        } catch {
            state.withLock { state in
                state.l2.markAllDirty()
                state.refcounts.cache.markAllDirty()
            }
            throw error
        }
        state.withLock { $0.barrierReached = max($0.barrierReached, wanted) }
    }

    private func writeMapping(_ cut: Cut) async throws(BlockError) {
        var next = 0
        while next < cut.slots.count {
            let batch = cut.slots[next..<min(next + Self.slicesPerBatch, cut.slots.count)]
            next += batch.count
            try await writeSlices(Array(batch))
        }
        guard !cut.l1.isEmpty else { return }
        // Also when no slice was dirty: a new table's refcount and its zeroes come before the entry that names it.
        try await writeRefcounts()
        try await flushFile()
        try await writeL1(cut.l1)
    }

    private struct SliceCopy {
        let slot: Int
        let version: UInt32
        let host: HostOffset
    }

    private func writeSlices(_ slots: [Int]) async throws(BlockError) {
        let sliceBytes = options.l2SliceBytes
        let buffer = IOBuffer(byteCount: slots.count * sliceBytes)
        var copies: [SliceCopy] = []
        for slot in slots {
            // One short critical section each: requests on other threads get in between.
            let position = copies.count * sliceBytes
            let copy: SliceCopy? = state.withLock { state in
                guard state.l2.isDirty(slot), let host = try? state.hostOffset(ofSlice: state.l2.slice(in: slot)) else { return nil }
                buffer.withMutableBytes { state.l2.encode(slot, into: &$0, at: position) }
                return SliceCopy(slot: slot, version: state.l2.version(of: slot), host: host)
            }
            if let copy { copies.append(copy) }
        }
        let mustFlush = state.withLock { $0.needsBarrier }
        if mustFlush {
            try await writeRefcounts()
            try await flushFile()
        }
        // Neighbours on disk go out in one write.
        var first = 0
        while first < copies.count {
            var end = first + 1
            while end < copies.count, copies[end].host == copies[end - 1].host + sliceBytes { end += 1 }
            let host = copies[first].host
            file.reached(.l2Update)
            Trace.qcow2L2Write(file: file.node.name, host: host.rawValue, slices: end - first)
            do {
                try await file.write(buffer.vector(at: first * sliceBytes, byteCount: (end - first) * sliceBytes), at: host.asGuest)
            } catch { throw error.during("writing the L2 table at \(host)") }
            state.withLock { state in
                for copy in copies[first..<end] { state.l2.written(copy.slot, version: copy.version) }
            }
            first = end
        }
    }

    private func writeL1(_ entries: [(index: Int, bits: UInt64)]) async throws(BlockError) {
        var first = 0
        while first < entries.count {
            var end = first + 1
            while end < entries.count, entries[end].index == entries[end - 1].index + 1 { end += 1 }
            let run = entries[first..<end]
            Trace.qcow2L1Write(file: file.node.name, index: entries[first].index, entries: run.count)
            let buffer = IOBuffer(byteCount: run.count * 8)
            buffer.withMutableBytes { bytes in
                for (position, entry) in run.enumerated() { bytes.setBigEndian(entry.bits, at: position * 8) }
            }
            let table = state.withLock { $0.l1Offset }
            file.reached(.l1Update)
            do { try await file.write(buffer.vector, at: (table + entries[first].index * 8).asGuest) } catch {
                throw error.during("writing the L1 table")
            }
            state.withLock { state in
                for entry in run {
                    state.l1OnDisk[entry.index] = state.l1[entry.index] == entry.bits ? nil : entry.bits
                }
            }
            first = end
        }
    }
}
