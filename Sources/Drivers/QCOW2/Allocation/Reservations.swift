import StrataBase

typealias ReservationID = Int

/// Host clusters that belong to one guest write, from the moment they are taken until the mapping names them.
///
/// A reservation is always published or cancelled. While it exists, no other request changes the mapping of its guest clusters.
struct Reservation: Hashable, Sendable {
    let id: ReservationID
    /// Whole guest clusters.
    let guest: GuestOffset
    let clusterCount: Int
    /// As many host clusters in a row.
    let host: HostOffset
    /// The host clusters were there already, or lie in a data file: cancelling must not free them.
    let keepsHost: Bool
    /// The host clusters have never been written and read as zeroes.
    let isKnownZero: Bool
    /// What the first and the last guest cluster mean until the reservation is published: the sources for copy-on-write.
    let firstOld: L2Entry
    let lastOld: L2Entry
    /// What has to be written around the guest's data: up to multiples of these before and after it. Bytes.
    let headUnit: Int
    let tailUnit: Int
    /// Keeps the old clusters from being reused while they are read; see `InFlightIO`.
    let ticket: InFlightIO.Ticket
}

/// The reservations under way and who waits for them. A handful at a time.
struct ReservationList: Sendable {
    private struct Active {
        let id: ReservationID
        let start: Int
        let end: Int
        var waiters: [CheckedContinuation<Void, Never>] = []
    }

    private var active: [Active] = []
    private var nextID = 0

    var isEmpty: Bool { active.isEmpty }

    /// Guest bytes, whole clusters.
    mutating func add(_ guest: GuestOffset, byteCount: Int) -> ReservationID {
        nextID += 1
        active.append(Active(id: nextID, start: guest.rawValue, end: guest.rawValue + byteCount))
        return nextID
    }

    /// The nearest reservation that overlaps the range: where it starts and which it is.
    func firstOverlap(_ guest: GuestOffset, byteCount: Int, except own: ReservationID? = nil) -> (start: Int, id: ReservationID)? {
        var nearest: (start: Int, id: ReservationID)?
        for other in active where other.start < guest.rawValue + byteCount && guest.rawValue < other.end && other.id != own {
            if nearest == nil || other.start < (nearest?.start ?? 0) { nearest = (other.start, other.id) }
        }
        return nearest
    }

    /// Registers a waiter; false when the reservation is over.
    mutating func wait(for id: ReservationID, _ continuation: CheckedContinuation<Void, Never>) -> Bool {
        guard let position = active.firstIndex(where: { $0.id == id }) else { return false }
        active[position].waiters.append(continuation)
        return true
    }

    /// Ends a reservation; the caller resumes the waiters after it has left the mutex.
    mutating func remove(_ id: ReservationID) -> [CheckedContinuation<Void, Never>] {
        guard let position = active.firstIndex(where: { $0.id == id }) else { return [] }
        return active.remove(at: position).waiters
    }
}
