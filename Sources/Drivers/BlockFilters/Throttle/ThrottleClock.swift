package import IOCore

/// What tells a throttle group the time: the machine, or a test.
package protocol ThrottleClock: Sendable {
    /// Nanoseconds since some moment.
    var now: Int64 { get }
    /// Calls `body` once so many nanoseconds have passed; on any thread.
    /// - Parameter context: where the request waits; nil when it came from outside of every context.
    func call(after nanoseconds: Int64, on context: IOContext?, _ body: @escaping @Sendable () -> Void)
}

/// The machine's clock, with the timers of the I/O contexts.
package struct MachineThrottleClock: ThrottleClock {
    package init() {}

    package var now: Int64 { MonotonicTime.now }

    package func call(after nanoseconds: Int64, on context: IOContext?, _ body: @escaping @Sendable () -> Void) {
        if let context {
            context.schedule(after: .nanoseconds(nanoseconds), body)
        } else {
            Task {
                // A task that nobody cancels sleeps as long as it was told.
                do { try await Task.sleep(for: .nanoseconds(nanoseconds)) } catch {}
                body()
            }
        }
    }
}
