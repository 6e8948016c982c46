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
            if tryEnter() { return }
            _ = await reopened.wait { _ in closures.load(ordering: .sequentiallyConsistent) == 0 ? true : nil }
        }
    }

    /// Enters if that needs no waiting; pair with `leave`.
    func tryEnter() -> Bool {
        // Counted first, looked at second: the drainer does it the other way round, so one of the two notices the other.
        inFlight.enter()
        if closures.load(ordering: .sequentiallyConsistent) == 0 { return true }
        inFlight.leave()
        return false
    }

    /// Enters one request through two gates. It never waits at one of them while it counts at the other: who drains both would wait for it.
    static func enter(_ first: RequestGate, _ second: RequestGate) async {
        while true {
            await first.enter()
            if second.tryEnter() { return }
            first.leave()
            await second.enter()
            second.leave()
        }
    }

    func leave() { inFlight.leave() }

    /// Waits without entering: the gate may be closed again when this returns.
    func waitUntilOpen() async { _ = await reopened.wait { _ in closures.load(ordering: .sequentiallyConsistent) == 0 ? true : nil } }

    func close() { closures.add(1, ordering: .sequentiallyConsistent) }

    func open() {
        let left = closures.subtract(1, ordering: .sequentiallyConsistent).newValue
        precondition(left >= 0, "a gate is opened as often as it was closed")
        if left == 0 { reopened.update { _ in } }
    }

    func waitUntilIdle() async { await inFlight.waitUntilIdle() }
}
