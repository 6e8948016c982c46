package import BlockGraph
import IOCore
package import StrataBase
import Synchronization

/// How the mapping of whole clusters is changed without writing data.
enum Unmapping: Sendable {
    /// They read as zeroes; host clusters stay for later writes.
    case zero
    /// They read as zeroes; host clusters are freed.
    case zeroAndFree
    /// They are no longer allocated at all. Used only where nothing can be read there afterwards, or the backing file is meant to show.
    case forget
}

extension ImageState {
    /// Changes the mapping of up to `count` clusters from a cluster start on, within one slice.
    /// - Parameter visibleBacking: how many bytes of the backing file show through where nothing is allocated.
    /// - Returns: how many clusters are done.
    mutating func unmap(_ guest: GuestOffset, clusters count: Int, _ how: Unmapping, visibleBacking: Int) throws(Obstacle) -> Int {
        if let other = reservations.firstOverlap(guest, byteCount: count << geometry.clusterBits), other.start <= guest.rawValue {
            throw .reservation(other.id)
        }
        let index = l1Index(of: guest)
        if index < l1.count, L1Entry(bits: l1[index]).tableOffset == 0, how == .forget || guest.rawValue >= visibleBacking {
            // Nothing is allocated below this entry, and nothing shows through.
            let inTable = geometry.l2Entries - (guest.rawValue >> geometry.clusterBits) & (geometry.l2Entries - 1)
            return min(count, inTable)
        }
        let slot = try writableSlot(of: guest)
        let first = position(of: guest)
        var end = min(l2.entriesPerSlice - first, count)
        if let other = reservations.firstOverlap(guest, byteCount: end << geometry.clusterBits) {
            end = (other.start - guest.rawValue) >> geometry.clusterBits
        }
        for number in 0..<end {
            let old = l2.entry(slot, first + number)
            let shows = guest.rawValue + number << geometry.clusterBits < visibleBacking
            guard let new = replacement(for: old, how, backingShows: shows), new != old else { continue }
            if case .invalid = old.meaning(in: geometry, version: version) {
                throw .corrupt(.l2Entry(guest: guest + number << geometry.clusterBits, bits: old.bits))
            }
            l2.set(new, slot, first + number)
            if new.hostOffset == 0 { release(old, isPunched: true) }
        }
        return end
    }

    private func replacement(for old: L2Entry, _ how: Unmapping, backingShows: Bool) -> L2Entry? {
        if how == .forget { return .unallocated }
        if old.isCompressed { return .zero }
        if old.hostOffset == 0 {
            if old.readsAsZero { return nil }
            return backingShows ? .zero : nil
        }
        if how == .zeroAndFree { return .zero }
        return L2Entry(bits: old.bits | L2Entry.zeroFlag)
    }
}

extension QCOW2Driver: ZeroWriting {
    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        try await prepareForWriting()
        let how: Unmapping
        if opened.header.version >= 3 {
            how = flags.contains(.mayUnmap) ? .zeroAndFree : .zero
        } else {
            // Version 2 has no zero flag: only without a backing file does "not allocated" mean zero.
            if bytesInBacking(at: range.start, range.byteCount) > 0 { return .unsupported }
            how = .forget
        }
        let cluster = geometry.clusterSize
        let start = range.start.roundedUp(to: cluster)
        // The last cluster of the disk may end early; nobody sees its rest.
        let end = range.end.rawValue == length ? GuestOffset(range.end.rawValue.roundedUp(to: cluster)) : range.end.roundedDown(to: cluster)
        guard start < end else {
            try await writeZeroData(range, flags)
            return .done
        }
        if range.start < start { try await writeZeroData(GuestRange(range.start, byteCount: start - range.start), flags) }
        try await unmap(from: start, to: end, how)
        if end < range.end { try await writeZeroData(GuestRange(end, byteCount: range.end - end), flags) }
        return .done
    }

    func unmap(from start: GuestOffset, to end: GuestOffset, _ how: Unmapping) async throws(BlockError) {
        var position = start
        let visible = backing?.length ?? 0
        while position < end {
            let here = position
            let count = (end - position) >> geometry.clusterBits
            let done = try await step { state throws(Obstacle) in try state.unmap(here, clusters: count, how, visibleBacking: visible) }
            position += done << geometry.clusterBits
            try await limitUnmapped()
        }
    }

    /// Zeroes for part of a cluster: nothing to do where it reads as zeroes, else data.
    private func writeZeroData(_ range: GuestRange, _ flags: RequestFlags) async throws(BlockError) {
        var position = range.start
        let buffer = IOBuffer(zeroed: min(range.byteCount, geometry.clusterSize))
        while position < range.end {
            let here = position
            let left = range.end - position
            let extent = try await step { state throws(Obstacle) in try state.extent(at: here, limit: left) }
            let count = min(extent.byteCount, buffer.byteCount)
            let isZero: Bool
            switch extent.kind {
            case .zero, .zeroAllocated: isZero = true
            case .unallocated: isZero = bytesInBacking(at: position, count) == 0
            case .normal, .compressed: isZero = false
            }
            if !isZero { try await write(buffer.vector(at: 0, byteCount: count), at: position, flags: []) }
            position += count
        }
    }

    /// Clusters that wait to become free are not usable; when they are many, they are made so.
    func limitUnmapped() async throws(BlockError) {
        let isTooMuch = state.withLock { state in
            state.frees.unmapped.count > 4096 || state.frees.unmappedClusters > max(1024, (256 << 20) >> geometry.clusterBits)
        }
        if isTooMuch { try await commit(.mapping) }
    }
}
