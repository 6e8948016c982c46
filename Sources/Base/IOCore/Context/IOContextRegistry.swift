import Synchronization

/// Every context whose loop runs, so that a drained section can wait for the turn boundary of all of them.
///
/// Strong references, given up when the loop ends: a weak one would make every retain of a context, on the way of each request, a slow one.
package enum IOContextRegistry {
    private static let running = Mutex<[IOContext]>([])

    static func add(_ context: IOContext) { running.withLock { $0.append(context) } }

    static func remove(_ context: IOContext) { running.withLock { list in list.removeAll { $0 === context } } }

    /// Returns when every turn that was running at the time of the call, on whichever context, is over.
    package static func waitForTurnBoundaries() async {
        for context in running.withLock({ $0 }) { await context.turnBoundary() }
    }
}
