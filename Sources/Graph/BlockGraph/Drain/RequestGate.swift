import IOCore
import Synchronization

/// Lets requests in, or keeps them waiting while somebody holds the gate closed. Closing nests.
final class RequestGate: Sendable {
    private let closures = Atomic<Int>(0)
    private let inFlight = InFlightCounter()
    /// Where requests wait for the gate to open; the condition itself is `closures`.
    private let reopened = AsyncCondition(())

    /// For synchronous requests on an I/O context: after `close` and a turn boundary of every context, none that saw true is still running.
    var isOpen: Bool { closures.load(ordering: .acquiring) == 0 }

    /// Enters a request that may suspend; waits while the gate is closed. Pair with `leave`.
    func enter() async {
        while true {
            // Counted first, looked at second: the drainer does it the other way round, so one of the two notices the other.
            inFlight.enter()
            if closures.load(ordering: .sequentiallyConsistent) == 0 { return }
            inFlight.leave()
            _ = await reopened.wait { _ in closures.load(ordering: .sequentiallyConsistent) == 0 ? true : nil }
        }
    }

    func leave() { inFlight.leave() }

    func close() { closures.add(1, ordering: .sequentiallyConsistent) }

    func open() {
        let left = closures.subtract(1, ordering: .sequentiallyConsistent).newValue
        precondition(left >= 0, "a gate is opened as often as it was closed")
        if left == 0 { reopened.update { _ in } }
    }

    func waitUntilIdle() async { await inFlight.waitUntilIdle() }
}
