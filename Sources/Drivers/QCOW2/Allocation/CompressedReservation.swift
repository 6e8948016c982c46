import StrataBase

/// The place of one compressed cluster, from the moment it is taken until the mapping names it. As with `Reservation`, nobody else changes the
/// mapping of its guest cluster meanwhile, and it is always published or cancelled.
struct CompressedReservation: Hashable, Sendable {
    let id: ReservationID
    /// A whole guest cluster.
    let guest: GuestOffset
    let data: CompressedCluster
    /// See `InFlightIO`.
    let ticket: InFlightIO.Ticket
}

extension ImageState {
    /// Takes a place for a compressed guest cluster.
    /// - Parameter byteCount: of the stream; less than a cluster.
    /// - Returns: nil when the place lies beyond what an L2 entry can name.
    mutating func reserveCompressed(
        at guest: GuestOffset, byteCount: Int, _ inFlight: borrowing InFlightIO
    ) throws(Obstacle) -> CompressedReservation? {
        let slot = try writableSlot(of: guest)
        let old = l2.entry(slot, position(of: guest))
        if case .invalid = old.meaning(in: geometry, version: version) { throw .corrupt(.l2Entry(guest: guest, bits: old.bits)) }
        if let other = reservations.firstOverlap(guest, byteCount: geometry.clusterSize) { throw .reservation(other.id) }
        let data = CompressedCluster(offset: try refcounts.allocatePacked(byteCount, &metadataClusters), byteCount: byteCount)
        guard data.fits(in: geometry) else {
            giveBack(data)
            return nil
        }
        let id = reservations.add(guest, byteCount: geometry.clusterSize)
        return CompressedReservation(id: id, guest: guest, data: data, ticket: inFlight.enter(epoch: epoch))
    }

    /// Makes the mapping name the data, after it was written. What it replaces is queued to be freed.
    /// - Returns: tasks that waited for it; resume them outside the mutex.
    mutating func publish(_ reservation: CompressedReservation) throws(Obstacle) -> [CheckedContinuation<Void, Never>] {
        // The slice may have left the cache meanwhile.
        let slot = try writableSlot(of: reservation.guest)
        let position = position(of: reservation.guest)
        let old = l2.entry(slot, position)
        l2.set(reservation.data.entry(in: geometry), slot, position)
        release(old, isPunched: punchesOthers)
        barrierWanted += 1
        return reservations.remove(reservation.id)
    }

    /// Gives the place back, after the data could not be written.
    /// - Returns: as `publish`.
    mutating func cancel(_ reservation: CompressedReservation) -> [CheckedContinuation<Void, Never>] {
        giveBack(reservation.data)
        return reservations.remove(reservation.id)
    }

    /// Drops a place that no mapping names.
    private mutating func giveBack(_ data: CompressedCluster) {
        let (start, byteCount) = data.hostClusters(in: geometry)
        refcounts.stopPacking(in: start, byteCount: byteCount)
        let first = start.rawValue >> geometry.clusterBits
        for cluster in first..<(first + (byteCount >> geometry.clusterBits)) {
            do { _ = try refcounts.lower(cluster) } catch {
                // The refcount block has left the cache: take the slow way to free it.
                frees.add(HostOffset(cluster << geometry.clusterBits), clusters: 1, clusterSize: geometry.clusterSize, isPunched: false)
            }
        }
    }
}
