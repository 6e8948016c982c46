import Synchronization

/// Which requests may still use a host cluster that the mapping no longer names.
///
/// **The rule.** A request looks a host cluster up under the image's mutex and does its I/O without it. It takes a ticket in the same critical
/// section and returns it after the I/O. A cluster that is freed is handed out again, or punched out of the file, only when every request
/// that took its ticket before the cluster left the mapping has returned it.
///
/// Tickets are counted per epoch, and only two epochs are open at a time, so taking and returning one is an atomic addition each.
struct InFlightIO: ~Copyable, Sendable {
    /// The parity of the epoch in which the request started.
    typealias Ticket = Int

    private let even = Atomic<Int>(0)
    private let odd = Atomic<Int>(0)

    /// Under the image's mutex.
    func enter(epoch: Int) -> Ticket {
        if epoch & 1 == 0 { even.add(1, ordering: .relaxed) } else { odd.add(1, ordering: .relaxed) }
        return epoch & 1
    }

    func leave(_ ticket: Ticket) {
        if ticket == 0 { even.subtract(1, ordering: .releasing) } else { odd.subtract(1, ordering: .releasing) }
    }

    private func isIdle(parity: Int) -> Bool {
        (parity & 1 == 0 ? even.load(ordering: .acquiring) : odd.load(ordering: .acquiring)) == 0
    }

    /// Opens the next epoch if the one before the current has no requests left. Under the image's mutex.
    func advance(_ epoch: inout Int) {
        if isIdle(parity: epoch &- 1) { epoch += 1 }
    }

    /// Whether every request that started in epoch `past` or earlier is over. Under the image's mutex.
    func isOver(_ past: Int, currentEpoch: Int) -> Bool {
        if currentEpoch >= past + 2 { return true }
        return currentEpoch == past + 1 && isIdle(parity: past)
    }
}
