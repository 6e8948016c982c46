package import BlockGraph
import IOCore
package import StrataBase
import Synchronization

/// How the mapping is changed without writing data.
enum Unmapping: Sendable {
    /// It reads as zeroes; host clusters stay for later writes.
    case zero
    /// It reads as zeroes; host clusters are freed.
    case zeroAndFree
    /// Whole clusters are no longer allocated at all. Used only where nothing can be read there afterwards, or the backing file is meant to show.
    case forget
    /// The same for clusters that were never the guest's: they give their space back, whatever is done with discards.
    case abandon

    var leavesNothing: Bool { self == .forget || self == .abandon }
}

extension ImageState {
    /// Changes the mapping of up to `count` clusters from a cluster start on, within one slice.
    /// - Parameters:
    ///   - visibleBacking: how many bytes of the backing file show through where nothing is allocated.
    ///   - own: the reservation that the caller has for these clusters.
    /// - Returns: how many clusters are done.
    mutating func unmap(
        _ guest: GuestOffset, clusters count: Int, _ how: Unmapping, visibleBacking: Int, own: ReservationID? = nil
    ) throws(Obstacle) -> Int {
        if let other = reservations.firstOverlap(guest, byteCount: count << geometry.clusterBits, except: own), other.start <= guest.rawValue {
            throw .reservation(other.id)
        }
        let index = l1Index(of: guest)
        if index < l1.count, L1Entry(bits: l1[index]).tableOffset == 0, how.leavesNothing || guest.rawValue >= visibleBacking {
            // Nothing is allocated below this entry, and nothing shows through.
            let inTable = geometry.l2Entries - (guest.rawValue >> geometry.clusterBits) & (geometry.l2Entries - 1)
            return min(count, inTable)
        }
        let slot = try writableSlot(of: guest)
        let first = position(of: guest)
        var end = min(l2.entriesPerSlice - first, count)
        if let other = reservations.firstOverlap(guest, byteCount: end << geometry.clusterBits, except: own) {
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
            if !new.hasHost(in: geometry) { release(old, isPunched: punchesDiscards || how == .abandon) }
        }
        return end
    }

    private func replacement(for old: L2Entry, _ how: Unmapping, backingShows: Bool) -> L2Entry? {
        if how.leavesNothing { return .unallocated }
        if old.isCompressed { return .zero(in: geometry) }
        if !old.hasHost(in: geometry) { return backingShows ? .zero(in: geometry) : nil }
        return how == .zeroAndFree && !keepsDiscarded ? .zero(in: geometry) : old.zeroed(in: geometry)
    }

    /// Makes whole subclusters of one cluster read as zeroes. When all of them do, `zeroAndFree` frees the host cluster.
    /// - Parameter visibleBacking: as for `unmap`.
    /// - Returns: false when that takes data: the cluster is compressed.
    mutating func zeroSubclusters(_ range: GuestRange, _ how: Unmapping, visibleBacking: Int) throws(Obstacle) -> Bool {
        let cluster = range.start.roundedDown(to: geometry.clusterSize)
        if let other = reservations.firstOverlap(cluster, byteCount: geometry.clusterSize) { throw .reservation(other.id) }
        let index = l1Index(of: cluster)
        let shows = range.start.rawValue < visibleBacking
        if index < l1.count, L1Entry(bits: l1[index]).tableOffset == 0, !shows { return true }
        let slot = try writableSlot(of: cluster)
        let old = l2.entry(slot, position(of: cluster))
        switch old.meaning(in: geometry, version: version) {
        case .invalid: throw .corrupt(.l2Entry(guest: cluster, bits: old.bits))
        case .compressed: return false
        case .unallocated, .mixed(nil), .zero(nil): if !shows { return true }
        case .normal, .zero, .mixed: break
        }
        let mask = SubclusterBitmap.mask((range.start - cluster) >> geometry.subclusterBits, count: range.byteCount >> geometry.subclusterBits)
        var new = old
        new.subclusters = SubclusterBitmap(allocated: old.subclusters.allocated & ~mask, zero: old.subclusters.zero | mask)
        if new.subclusters == .allZero, how == .zeroAndFree, !keepsDiscarded {
            new = .zero(in: geometry)
            release(old, isPunched: punchesDiscards)
        }
        if new != old { l2.set(new, slot, position(of: cluster)) }
        return true
    }
}

extension ImageState {
    /// Has a subcluster that is not allocated read as zeroes whatever file is put below the image later.
    /// - Returns: false when it has data.
    mutating func zeroUnallocated(_ subcluster: GuestOffset) throws(Obstacle) -> Bool {
        let cluster = subcluster.roundedDown(to: geometry.clusterSize)
        if let other = reservations.firstOverlap(cluster, byteCount: geometry.clusterSize) { throw .reservation(other.id) }
        let slot = try writableSlot(of: cluster)
        var entry = l2.entry(slot, position(of: cluster))
        if entry.isCompressed { return false }
        if case .invalid = entry.meaning(in: geometry, version: version) { throw .corrupt(.l2Entry(guest: cluster, bits: entry.bits)) }
        let index = (subcluster - cluster) >> geometry.subclusterBits
        switch entry.kind(ofSubcluster: index, in: geometry) {
        case .normal, .compressed: return false
        case .zero, .zeroAllocated: return true
        case .unallocated, .reserved:
            if geometry.hasSubclusters {
                entry.subclusters = SubclusterBitmap(
                    allocated: entry.subclusters.allocated, zero: entry.subclusters.zero | SubclusterBitmap.mask(index, count: 1))
            } else {
                entry = .zero(in: geometry)
            }
            l2.set(entry, slot, position(of: cluster))
            return true
        }
    }
}

extension QCOW2Driver: ZeroWriting {
    package func writeZeroes(_ range: GuestRange, flags: RequestFlags) async throws(BlockError) -> Support {
        try await prepareForWriting()
        if isRawData {
            try await zeroRawData(range, flags)
            return .done
        }
        let how: Unmapping
        if opened.header.version >= 3 {
            how = flags.contains(.mayUnmap) ? .zeroAndFree : .zero
        } else {
            // Version 2 has no zero flag: only without a backing file does "not allocated" mean zero.
            if lacksNamedBacking || bytesInBacking(at: range.start, range.byteCount) > 0 { return .unsupported }
            how = .forget
        }
        let unit = geometry.subclusterSize
        let start = range.start.roundedUp(to: unit)
        // The last cluster of the disk may end early; nobody sees its rest.
        let end = range.end.rawValue == length ? GuestOffset(range.end.rawValue.roundedUp(to: geometry.clusterSize)) : range.end.roundedDown(to: unit)
        guard start < end else {
            try await writeZeroData(range, flags)
            return .done
        }
        if range.start < start { try await writeZeroData(GuestRange(range.start, byteCount: start - range.start), flags) }
        try await unmap(from: start, to: end, how, writingData: true)
        if end < range.end { try await writeZeroData(GuestRange(end, byteCount: range.end - end), flags) }
        return .done
    }

    /// The image was opened without the backing file that it names. What is not allocated reads as zeroes now, and not when that file is there again: zeroes
    /// that somebody writes have to be in the image.
    private var lacksNamedBacking: Bool { backing == nil && backingName != nil }

    /// Changes the mapping of whole subclusters.
    /// - Parameter writingData: whether parts of a compressed cluster are overwritten with zeroes; otherwise they stay.
    func unmap(from start: GuestOffset, to end: GuestOffset, _ how: Unmapping, writingData: Bool = false) async throws(BlockError) {
        var position = start
        var rounds = 0
        // Zeroes that somebody writes are in the image, also where nothing shows through today: an overlay can get its backing file later.
        let visible = writingData ? .max : backing?.length ?? 0
        while position < end {
            // A disk of terabytes takes long, and where nothing has to be read or written nothing here waits: others want their turns.
            rounds += 1
            if rounds.isMultiple(of: 64) { await Task.yield() }
            let here = position
            let clusterEnd = (here + 1).roundedUp(to: geometry.clusterSize)
            if !here.isAligned(to: geometry.clusterSize) || end < clusterEnd {
                let part = GuestRange(here, byteCount: min(end, clusterEnd) - here)
                let isDone = try await step { state throws(Obstacle) in try state.zeroSubclusters(part, how, visibleBacking: visible) }
                if !isDone, writingData { try await writeZeroData(GuestRange(here, byteCount: min(part.byteCount, length - here.rawValue)), []) }
                position = part.end
            } else {
                let count = (end - position) >> geometry.clusterBits
                let done = how == .zeroAndFree && geometry.hasExternalData
                    ? try await unmapExternal(here, clusters: count, visibleBacking: visible)
                    : try await step { state throws(Obstacle) in try state.unmap(here, clusters: count, how, visibleBacking: visible) }
                position += done << geometry.clusterBits
            }
            try await limitUnmapped()
        }
    }

    /// The same for clusters in a data file. Their places are not queued to be freed, since nobody else ever gets them: they are emptied at once,
    /// while the reservation keeps new writes to them out.
    private func unmapExternal(_ guest: GuestOffset, clusters count: Int, visibleBacking: Int) async throws(BlockError) -> Int {
        let limit = min(count, max(1, (64 << 20) >> geometry.clusterBits))
        let id = try await step { state throws(Obstacle) in
            if let other = state.reservations.firstOverlap(guest, byteCount: limit << state.geometry.clusterBits) { throw .reservation(other.id) }
            return state.reservations.add(guest, byteCount: limit << state.geometry.clusterBits)
        }
        defer {
            for waiter in state.withLock({ $0.reservations.remove(id) }) { waiter.resume() }
        }
        let range = GuestRange(guest, byteCount: min(limit << geometry.clusterBits, dataFile.length - guest.rawValue))
        if options.passesDiscards, range.byteCount > 0 {
            do { try await dataFile.writeZeroes(range, flags: [.mayUnmap, .noFallback]) } catch {
                // Giving space back is a service, not a promise.
            }
        }
        return try await step { state throws(Obstacle) in
            try state.unmap(guest, clusters: limit, .zeroAndFree, visibleBacking: visibleBacking, own: id)
        }
    }

    /// Whether the data file must always be the guest's disk byte for byte.
    var isRawData: Bool { !isEncrypted && geometry.hasExternalData && opened.header.autoclear.contains(.rawExternalData) }

    /// Zeroes in a data file that is a raw image by itself are there as zeroes. The mapping stays: a write that comes at the same time must find its
    /// way into both or neither.
    func zeroRawData(_ range: GuestRange, _ flags: RequestFlags) async throws(BlockError) {
        var position = range.start
        while position < range.end {
            let here = position
            let left = range.end - position
            let extent = try await step { state throws(Obstacle) in try state.extent(at: here, limit: left) }
            switch extent.kind {
            case .normal: try await dataFile.writeZeroes(GuestRange(extent.host.asGuest, byteCount: extent.byteCount), flags: flags)
            case .zero, .zeroAllocated, .unallocated, .reserved, .compressed: try await writeZeroData(GuestRange(here, byteCount: extent.byteCount), flags)
            }
            position += extent.byteCount
        }
    }

    /// Zeroes for part of a subcluster: what is not allocated is noted as zero where all of it reads as zeroes, and the rest written as data.
    private func writeZeroData(_ range: GuestRange, _ flags: RequestFlags) async throws(BlockError) {
        var position = range.start
        let buffer = IOBuffer(zeroed: min(range.byteCount, geometry.subclusterSize))
        while position < range.end {
            let here = position
            let left = range.end - position
            let extent = try await step { state throws(Obstacle) in try state.extent(at: here, limit: left) }
            let unit = position.roundedDown(to: geometry.subclusterSize)
            // What holds for one subcluster need not hold for the next.
            let count = min(extent.byteCount, unit + geometry.subclusterSize - position)
            let isZero: Bool
            switch extent.kind {
            case .zero, .zeroAllocated: isZero = true
            case .unallocated, .reserved:
                if lacksNamedBacking || bytesInBacking(at: unit, geometry.subclusterSize) > 0 {
                    isZero = false
                } else if opened.header.version >= 3, !isRawData {
                    let isNoted = try await step { state throws(Obstacle) in try state.zeroUnallocated(unit) }
                    // Somebody else has written to it meanwhile: it is looked at again.
                    if !isNoted { continue }
                    isZero = true
                } else {
                    isZero = bytesInBacking(at: position, count) == 0
                }
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
