import StrataBase

/// How the beginning of a guest write is carried out.
enum WritePlan: Sendable {
    /// Over clusters that belong to this guest range alone. Return the ticket after the write.
    case inPlace(host: HostOffset, byteCount: Int, ticket: InFlightIO.Ticket)
    /// Into clusters that the mapping will name after the write.
    case reserved(Reservation)
}

// About functions that are `mutating` although they change nothing see GuestMapping.swift.

extension ImageState {
    /// Clusters that one reservation takes at most: enough to amortize it, few enough that it does not keep neighbours waiting.
    private var reservationLimit: Int { max(1, (4 << 20) >> geometry.clusterBits) }

    /// Decides how to write the first bytes of a guest range and takes what that needs.
    mutating func planWrite(at guest: GuestOffset, byteCount: Int, _ inFlight: borrowing InFlightIO) throws(Obstacle) -> WritePlan {
        let slot = try writableSlot(of: guest)
        let position = position(of: guest)
        let entry = l2.entry(slot, position)
        if isExclusiveData(entry, at: guest) {
            let extent = try extent(at: guest, limit: byteCount)
            try checkPlace(extent.host, byteCount: extent.byteCount, guest, entry)
            return .inPlace(host: extent.host, byteCount: extent.byteCount, ticket: inFlight.enter(epoch: epoch))
        }
        if case .invalid = entry.meaning(in: geometry, version: version) { throw .corrupt(.l2Entry(guest: guest, bits: entry.bits)) }
        return .reserved(try reserve(guest, byteCount, slot, position, inFlight))
    }

    /// The same for a write that waits for nothing. A function of the state rather than of the driver: a closure that decided this would copy the
    /// whole state, and whoever shares an array with a copy copies the array when it changes.
    /// - Returns: nil when such a write is not possible now.
    mutating func planWriteAtOnce(at guest: GuestOffset, byteCount: Int, onlyInPlace: Bool, _ inFlight: borrowing InFlightIO) throws(Obstacle) -> WritePlan? {
        if !takesWrites || isCorrupt || headerInDoubt != nil { return nil }
        if onlyInPlace {
            let slot = try writableSlot(of: guest)
            if !isExclusiveData(l2.entry(slot, position(of: guest)), at: guest) { return nil }
        }
        return try planWrite(at: guest, byteCount: byteCount, inFlight)
    }

    /// Takes clusters for a write that cannot go over clusters of its own as they are.
    private mutating func reserve(
        _ guest: GuestOffset, _ byteCount: Int, _ slot: Int, _ position: Int, _ inFlight: borrowing InFlightIO
    ) throws(Obstacle) -> Reservation {
        let entry = l2.entry(slot, position)
        let start = guest.roundedDown(to: geometry.clusterSize)
        var wanted = min(geometry.clusters(guest - start + byteCount), l2.entriesPerSlice - position, reservationLimit)
        if let other = reservations.firstOverlap(start, byteCount: wanted << geometry.clusterBits) {
            if other.start <= start.rawValue { throw .reservation(other.id) }
            wanted = (other.start - start.rawValue) >> geometry.clusterBits
        }

        let run: ClusterRun
        let ownsHost = isExclusiveHost(entry)
        if ownsHost {
            run = try preallocatedRun(slot, position, wanted)
        } else {
            var count = 1
            while count < wanted, needsClusters(l2.entry(slot, position + count)) { count += 1 }
            if geometry.hasExternalData {
                // A guest cluster's place in a data file is its own offset.
                run = ClusterRun(start: HostOffset(start.rawValue), clusterCount: count, isKnownZero: false)
            } else {
                run = try refcounts.allocate(upTo: count, &metadataClusters)
            }
        }
        let lastOld = l2.entry(slot, position + run.clusterCount - 1)
        let id = reservations.add(start, byteCount: run.clusterCount << geometry.clusterBits)
        return Reservation(
            id: id, guest: start, clusterCount: run.clusterCount, host: run.start, keepsHost: ownsHost || geometry.hasExternalData,
            isKnownZero: run.isKnownZero, firstOld: entry, lastOld: lastOld, headUnit: copyUnit(entry, ownsHost),
            tailUnit: ownsHost && isData(lastOld, at: guest + byteCount - 1, in: start, run) ? 1 : copyUnit(lastOld, ownsHost),
            ticket: inFlight.enter(epoch: epoch))
    }

    /// How much around a guest's data comes along into the cluster: a new cluster takes over all that lay in the old one, else only what shares a
    /// subcluster with the data.
    private mutating func copyUnit(_ old: L2Entry, _ ownsHost: Bool) -> Int {
        if ownsHost { return geometry.subclusterSize }
        switch old.meaning(in: geometry, version: version) {
        case .normal, .compressed: return geometry.clusterSize
        case .mixed: return old.subclusters.allocated == 0 ? geometry.subclusterSize : geometry.clusterSize
        case .zero, .unallocated, .invalid: return geometry.subclusterSize
        }
    }

    /// Whether the last byte of a write falls on a subcluster that is there already: what is behind the data in it stays.
    private mutating func isData(_ old: L2Entry, at last: GuestOffset, in start: GuestOffset, _ run: ClusterRun) -> Bool {
        guard geometry.hasSubclusters, last < start + run.clusterCount << geometry.clusterBits else { return false }
        return old.kind(ofSubcluster: (last.rawValue & (geometry.clusterSize - 1)) >> geometry.subclusterBits, in: geometry) == .normal
    }

    /// - Throws: `.corrupt` for a place where guest data cannot be: over the image's tables, or behind the last cluster of the file. A mapping that
    ///   leads out of the file must not make it grow.
    private mutating func checkPlace(_ host: HostOffset, byteCount: Int, _ guest: GuestOffset, _ entry: L2Entry) throws(Obstacle) {
        if geometry.hasExternalData {
            guard host.rawValue + byteCount <= l1.count << geometry.l1Shift else { throw .corrupt(.l2Entry(guest: guest, bits: entry.bits)) }
            return
        }
        if let obstacle = overlap(host, byteCount: byteCount) { throw obstacle }
        guard host.rawValue + byteCount <= refcounts.endOfFile else { throw .corrupt(.l2Entry(guest: guest, bits: entry.bits)) }
    }

    /// Data in a host cluster whose only reference this entry is.
    private mutating func isExclusiveData(_ entry: L2Entry, at guest: GuestOffset) -> Bool {
        let hasHost = entry.hostOffset != 0 || geometry.hasExternalData
        guard hasHost, entry.bits & ~L2Entry.offsetMask == L2Entry.copiedFlag, entry.hostOffset & (geometry.clusterSize &- 1) == 0 else { return false }
        if !geometry.hasSubclusters { return true }
        let subcluster = UInt32((guest.rawValue & (geometry.clusterSize &- 1)) &>> geometry.subclusterBits)
        return (entry.subclusters.allocated & ~entry.subclusters.zero) &>> subcluster & 1 != 0
    }

    /// Has a host cluster that belongs to it alone, for data that is not there yet: it reads as zeroes, or some of its subclusters are missing.
    private mutating func isExclusiveHost(_ entry: L2Entry) -> Bool {
        let flags = entry.bits & ~L2Entry.offsetMask
        let isReady = geometry.hasSubclusters ? flags == L2Entry.copiedFlag : flags == L2Entry.copiedFlag | L2Entry.zeroFlag
        return version >= 3 && isReady && (entry.hostOffset != 0 || geometry.hasExternalData) && entry.hostOffset & (geometry.clusterSize &- 1) == 0
    }

    /// Whether a write to the entry's cluster takes a new host cluster. Invalid entries stop a run and are reported when it is their turn.
    private mutating func needsClusters(_ entry: L2Entry) -> Bool {
        switch entry.meaning(in: geometry, version: version) {
        case .invalid: false
        case .normal, .zero(_?), .mixed(_?): !(entry.isCopied && !entry.hasReservedBits)
        case .unallocated, .zero(nil), .mixed(nil), .compressed: true
        }
    }

    private mutating func preallocatedRun(_ slot: Int, _ position: Int, _ wanted: Int) throws(Obstacle) -> ClusterRun {
        let first = l2.entry(slot, position)
        var count = 1
        while count < wanted {
            let next = l2.entry(slot, position + count)
            guard next.bits == first.bits &+ UInt64(count << geometry.clusterBits) else { break }
            if case .invalid = next.meaning(in: geometry, version: version) { break }
            count += 1
        }
        let guest = GuestOffset(l2.slice(in: slot) << sliceShift + position << geometry.clusterBits)
        try checkPlace(HostOffset(first.hostOffset), byteCount: count << geometry.clusterBits, guest, first)
        return ClusterRun(start: HostOffset(first.hostOffset), clusterCount: count, isKnownZero: false)
    }

    /// Makes the mapping name the clusters of a reservation, after their data was written. What they replace is queued to be freed.
    /// - Parameter written: the guest bytes that were written, with those around the guest's data; whole subclusters, or what was there already.
    /// - Returns: tasks that waited for it; resume them outside the mutex.
    mutating func publish(_ reservation: Reservation, written: GuestRange) throws(Obstacle) -> [CheckedContinuation<Void, Never>] {
        // The slice may have left the cache meanwhile.
        let slot = try writableSlot(of: reservation.guest)
        let position = position(of: reservation.guest)
        for number in 0..<reservation.clusterCount {
            let old = l2.entry(slot, position + number)
            var new = L2Entry.normal(reservation.host + number << geometry.clusterBits)
            if geometry.hasSubclusters {
                let mask = subclusters(of: written, inClusterAt: reservation.guest + number << geometry.clusterBits)
                let kept = reservation.keepsHost ? old.subclusters.allocated : 0
                let zero = old.isCompressed ? 0 : old.subclusters.zero
                new.subclusters = SubclusterBitmap(allocated: kept | mask, zero: zero & ~mask)
            }
            l2.set(new, slot, position + number)
            if !reservation.keepsHost { release(old, isPunched: punchesOthers) }
        }
        barrierWanted += 1
        return reservations.remove(reservation.id)
    }

    /// The same for clusters that read as zeroes, whatever lies in them. Not for divided clusters, nor in version 2.
    mutating func publishZeroes(_ reservation: Reservation) throws(Obstacle) -> [CheckedContinuation<Void, Never>] {
        let slot = try writableSlot(of: reservation.guest)
        let waiters = try publish(reservation, written: GuestRange(reservation.guest, byteCount: reservation.clusterCount << geometry.clusterBits))
        let position = position(of: reservation.guest)
        for number in 0..<reservation.clusterCount { l2.set(l2.entry(slot, position + number).zeroed(in: geometry), slot, position + number) }
        return waiters
    }

    /// The subclusters of one guest cluster that a range touches.
    private func subclusters(of range: GuestRange, inClusterAt cluster: GuestOffset) -> UInt32 {
        let start = max(range.start.rawValue, cluster.rawValue)
        let end = min(range.end.rawValue, cluster.rawValue + geometry.clusterSize)
        if start >= end { return 0 }
        let first = (start - cluster.rawValue) >> geometry.subclusterBits
        let last = (end - 1 - cluster.rawValue) >> geometry.subclusterBits
        return SubclusterBitmap.mask(first, count: last - first + 1)
    }

    /// Gives back what a reservation took, after its data could not be written.
    /// - Parameter isUntouched: nothing was written to its clusters.
    /// - Returns: as `publish`.
    mutating func cancel(_ reservation: Reservation, isUntouched: Bool = false) -> [CheckedContinuation<Void, Never>] {
        if !reservation.keepsHost {
            let first = reservation.host.rawValue >> geometry.clusterBits
            if isUntouched, reservation.isKnownZero { refcounts.forgetUse(of: first..<(first + reservation.clusterCount)) }
            for cluster in first..<(first + reservation.clusterCount) {
                do { _ = try refcounts.lower(cluster) } catch {
                    // The refcount block has left the cache: take the slow way to free it.
                    frees.add(HostOffset(cluster << geometry.clusterBits), clusters: 1, clusterSize: geometry.clusterSize, isPunched: false)
                }
            }
        }
        return reservations.remove(reservation.id)
    }

    /// Queues the host clusters of an entry that has just left the mapping. Those of a data file are nobody's but the guest cluster's.
    mutating func release(_ old: L2Entry, isPunched: Bool) {
        switch old.meaning(in: geometry, version: version) {
        case .normal(let host), .zero(let host?), .mixed(let host?):
            if geometry.hasExternalData { return }
            frees.add(host, clusters: 1, clusterSize: geometry.clusterSize, isPunched: isPunched)
        case .compressed(let data):
            let (start, byteCount) = data.hostClusters(in: geometry)
            refcounts.stopPacking(in: start, byteCount: byteCount)
            frees.add(start, clusters: byteCount >> geometry.clusterBits, clusterSize: geometry.clusterSize, isPunched: isPunched)
        case .zero(nil), .mixed(nil), .unallocated, .invalid: break
        }
    }
}
