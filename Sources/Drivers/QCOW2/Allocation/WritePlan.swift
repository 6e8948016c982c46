import StrataBase

/// How the beginning of a guest write is carried out.
enum WritePlan: Sendable {
    /// Over clusters that belong to this guest range alone. Return the ticket after the write.
    case inPlace(host: HostOffset, byteCount: Int, ticket: InFlightIO.Ticket)
    /// Into clusters that the mapping will name after the write.
    case reserved(Reservation)
}

extension ImageState {
    /// Clusters that one reservation takes at most: enough to amortize it, few enough that it does not keep neighbours waiting.
    private var reservationLimit: Int { max(1, (4 << 20) >> geometry.clusterBits) }

    /// Decides how to write the first bytes of a guest range and takes what that needs.
    mutating func planWrite(at guest: GuestOffset, byteCount: Int, _ inFlight: borrowing InFlightIO) throws(Obstacle) -> WritePlan {
        let slot = try writableSlot(of: guest)
        let position = position(of: guest)
        let entry = l2.entry(slot, position)
        if isExclusive(entry) {
            let extent = try extent(at: guest, limit: byteCount)
            if let bad = overlapsMetadata(extent.host, byteCount: extent.byteCount) { throw .corrupt(.overlapsMetadata(bad)) }
            guard isInFile(extent.host + extent.byteCount) else { throw .corrupt(.l2Entry(guest: guest, bits: entry.bits)) }
            return .inPlace(host: extent.host, byteCount: extent.byteCount, ticket: inFlight.enter(epoch: epoch))
        }
        if case .invalid = entry.meaning(in: geometry, version: version) { throw .corrupt(.l2Entry(guest: guest, bits: entry.bits)) }

        let start = guest.roundedDown(to: geometry.clusterSize)
        var wanted = min(geometry.clusters(guest - start + byteCount), l2.entriesPerSlice - position, reservationLimit)
        if let other = reservations.firstOverlap(start, byteCount: wanted << geometry.clusterBits) {
            if other.start <= start.rawValue { throw .reservation(other.id) }
            wanted = (other.start - start.rawValue) >> geometry.clusterBits
        }

        let run: ClusterRun
        let keepsHost = isExclusiveZero(entry)
        if keepsHost {
            run = try preallocatedRun(slot, position, wanted)
        } else {
            var count = 1
            while count < wanted, needsClusters(l2.entry(slot, position + count)) { count += 1 }
            run = try refcounts.allocate(upTo: count, &metadataClusters)
        }
        let id = reservations.add(start, byteCount: run.clusterCount << geometry.clusterBits)
        return .reserved(
            Reservation(
                id: id, guest: start, clusterCount: run.clusterCount, host: run.start, keepsHost: keepsHost, isKnownZero: run.isKnownZero,
                firstOld: entry, lastOld: l2.entry(slot, position + run.clusterCount - 1), ticket: inFlight.enter(epoch: epoch)))
    }

    /// Whether the first cluster of a write is written in place.
    mutating func isInPlace(_ guest: GuestOffset) throws(Obstacle) -> Bool {
        isExclusive(l2.entry(try writableSlot(of: guest), position(of: guest)))
    }

    /// Whether a position is not behind the last cluster of the file. A mapping that leads out of the file must not make it grow.
    private func isInFile(_ end: HostOffset) -> Bool {
        end.rawValue <= refcounts.endOfFile
    }

    /// A normal cluster whose only reference this entry is.
    private func isExclusive(_ entry: L2Entry) -> Bool {
        entry.bits & ~L2Entry.offsetMask == L2Entry.copiedFlag && entry.hostOffset != 0
            && entry.hostOffset & (geometry.clusterSize &- 1) == 0
    }

    /// Reads as zeroes, and has a host cluster that belongs to it alone.
    private func isExclusiveZero(_ entry: L2Entry) -> Bool {
        version >= 3 && entry.bits & ~L2Entry.offsetMask == L2Entry.copiedFlag | L2Entry.zeroFlag && entry.hostOffset != 0
            && entry.hostOffset & (geometry.clusterSize &- 1) == 0
    }

    /// Whether a write to the entry's cluster takes a new host cluster. Invalid entries stop a run and are reported when it is their turn.
    private func needsClusters(_ entry: L2Entry) -> Bool {
        if isExclusive(entry) || isExclusiveZero(entry) { return false }
        if case .invalid = entry.meaning(in: geometry, version: version) { return false }
        return true
    }

    private func preallocatedRun(_ slot: Int, _ position: Int, _ wanted: Int) throws(Obstacle) -> ClusterRun {
        let first = l2.entry(slot, position)
        var count = 1
        while count < wanted, l2.entry(slot, position + count).bits == first.bits &+ UInt64(count << geometry.clusterBits) { count += 1 }
        let host = HostOffset(first.hostOffset)
        if let bad = overlapsMetadata(host, byteCount: count << geometry.clusterBits) { throw .corrupt(.overlapsMetadata(bad)) }
        guard isInFile(host + count << geometry.clusterBits) else {
            throw .corrupt(.l2Entry(guest: GuestOffset(l2.slice(in: slot) << sliceShift), bits: first.bits))
        }
        return ClusterRun(start: host, clusterCount: count, isKnownZero: false)
    }

    /// Makes the mapping name the clusters of a reservation, after their data was written. What they replace is queued to be freed.
    /// - Returns: tasks that waited for it; resume them outside the mutex.
    mutating func publish(_ reservation: Reservation) throws(Obstacle) -> [CheckedContinuation<Void, Never>] {
        // The slice may have left the cache meanwhile.
        let slot = try writableSlot(of: reservation.guest)
        let position = position(of: reservation.guest)
        for number in 0..<reservation.clusterCount {
            let old = l2.entry(slot, position + number)
            l2.set(.normal(reservation.host + number << geometry.clusterBits), slot, position + number)
            if !reservation.keepsHost { release(old, isPunched: false) }
        }
        barrierWanted += 1
        return reservations.remove(reservation.id)
    }

    /// Gives back what a reservation took, after its data could not be written.
    /// - Returns: as `publish`.
    mutating func cancel(_ reservation: Reservation) -> [CheckedContinuation<Void, Never>] {
        if !reservation.keepsHost {
            let first = reservation.host.rawValue >> geometry.clusterBits
            for cluster in first..<(first + reservation.clusterCount) {
                do { _ = try refcounts.lower(cluster) } catch {
                    // The refcount block has left the cache: take the slow way to free it.
                    frees.add(HostOffset(cluster << geometry.clusterBits), clusters: 1, clusterSize: geometry.clusterSize, isPunched: false)
                }
            }
        }
        return reservations.remove(reservation.id)
    }

    /// Queues the host clusters of an entry that has just left the mapping.
    mutating func release(_ old: L2Entry, isPunched: Bool) {
        switch old.meaning(in: geometry, version: version) {
        case .normal(let host), .zero(let host?):
            frees.add(host, clusters: 1, clusterSize: geometry.clusterSize, isPunched: isPunched)
        case .compressed(let data):
            let (start, byteCount) = data.hostClusters(in: geometry)
            refcounts.stopPacking(in: start, byteCount: byteCount)
            frees.add(start, clusters: byteCount >> geometry.clusterBits, clusterSize: geometry.clusterSize, isPunched: isPunched)
        case .zero(nil), .unallocated, .invalid: break
        }
    }
}
