import IOCore
import StorageSchema
package import StrataBase
import Synchronization

// What `run` calls to be a good citizen. All of it outside of requests: a drained section waits for requests, and must not wait for users.

extension Job {
    /// Lets others run, waits while the job is held, and ends it when it is cancelled. Called once in each round of a loop.
    /// - Throws: `.cancelled`.
    package func pausePoint() async throws(BlockError) {
        await Task.yield()
        guard isWanted.load(ordering: .acquiring) else { return }
        await pauseIfHeld()
        if isCancelled { throw cancellation }
    }

    package var cancellation: BlockError { BlockError(.cancelled, "Operation canceled") }

    /// The same without an end: for drivers that have something to do first when they are cancelled.
    package func pauseIfHeld() async {
        while control.withLock({ $0.isPaused }) {
            let isReady = status == .ready
            move(to: isReady ? .standby : .paused)
            setBusy(false)
            await control.wait { $0.isPaused ? nil : () }
            setBusy(true)
            move(to: isReady ? .ready : .running)
        }
    }

    /// Whether the job's task should come to `waitForRate` before more is done: it is held, cancelled, or has done as much as its speed allows. For
    /// drivers that copy in several tasks, which all stop then: only one task passes pause points.
    package var mustStop: Bool {
        control.withLock { $0.isPaused || $0.cancellation == .real || $0.rate.wait(now: MonotonicTime.now) > 0 }
    }

    private func setBusy(_ isBusy: Bool) { control.withLock { $0.isBusy = isBusy } }

    /// Waits for that long, less when something happens to the job (`wake`, verbs). Nil waits until something happens.
    /// - Parameter ticket: `wakeUps` as it was when the caller decided to sleep, so that nothing is missed.
    package func sleep(for duration: Duration?, since ticket: Int) async {
        setBusy(false)
        defer { setBusy(true) }
        let isOver = Latch()
        let timer = duration.map { duration in
            context.schedule(after: duration) { [control] in
                isOver.set()
                control.update { _ in }
            }
        }
        defer { timer?.cancel() }
        await control.wait { $0.wakeUps != ticket || isOver.isSet ? () : nil }
    }

    /// How often something has happened to the job.
    package var wakeUps: Int { control.withLock { $0.wakeUps } }

    /// Takes into account that so many bytes were copied, and waits as long as the speed demands. Held and cancelled meanwhile like at a pause point.
    /// - Throws: `.cancelled`.
    package func throttle(_ byteCount: Int) async throws(BlockError) {
        control.withLock { $0.rate.charge(byteCount, now: MonotonicTime.now) }
        try await waitForRate()
    }

    /// The accounting half of `throttle`, for drivers that copy in several tasks and wait in one place.
    package func charge(_ byteCount: Int) { control.withLock { $0.rate.charge(byteCount, now: MonotonicTime.now) } }

    /// The waiting half.
    package func waitForRate() async throws(BlockError) {
        while true {
            try await pausePoint()
            let (wait, ticket) = control.withLock { ($0.rate.wait(now: MonotonicTime.now), $0.wakeUps) }
            if wait <= 0 { return }
            await sleep(for: .nanoseconds(wait), since: ticket)
        }
    }
}

/// A flag that is set once.
private final class Latch: Sendable {
    private let flag = Atomic<Bool>(false)
    var isSet: Bool { flag.load(ordering: .acquiring) }
    func set() { flag.store(true, ordering: .releasing) }
}
