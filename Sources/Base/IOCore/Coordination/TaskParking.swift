/// Long-lived tasks of one actor that wait for work.
///
/// Not `Sendable`: it belongs to one isolation, whose code parks and unparks; that is what makes "look for work, find none, park" free of lost
/// wake-ups without a lock. Waking the task that parked last keeps its memory warm.
@safe package final class TaskParking {
    private var parked: [UnsafeContinuation<Void, Never>] = unsafe []

    package init() {}

    /// Parked tasks must be woken before the object goes, or they never end.
    deinit { precondition(isEmpty, "nobody is left parked") }

    package var isEmpty: Bool { unsafe parked.isEmpty }

    /// Suspends the calling task until it is unparked, unless there is something to do for it.
    /// - Parameter hasWork: asked when the task is about to be parked. An earlier look does not count: other tasks may run on the same actor
    ///   between it and the suspension.
    package func park(unless hasWork: () -> Bool) async {
        // SAFETY: each continuation is either resumed here or stored, and taken out before it is resumed.
        unsafe await withUnsafeContinuation { continuation in
            if hasWork() { unsafe continuation.resume() } else { unsafe parked.append(continuation) }
        }
    }

    /// Wakes the task that parked last. False when none is parked.
    package func unparkOne() -> Bool {
        guard let continuation = unsafe parked.popLast() else { return false }
        unsafe continuation.resume()
        return true
    }

    package func unparkAll() {
        while unparkOne() {}
    }
}
