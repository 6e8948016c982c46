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

    /// Suspends the calling task until it is unparked.
    package func park() async {
        // SAFETY: each continuation is stored once, and taken out before it is resumed.
        unsafe await withUnsafeContinuation { unsafe parked.append($0) }
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
