import Synchronization

/// Every context of the process, so that a drained section can wait for the turn boundary of all of them.
package enum IOContextRegistry {
    private struct Entry {
        weak var context: IOContext?
    }

    private static let entries = Mutex<[Entry]>([])

    static func add(_ context: IOContext) {
        entries.withLock { list in
            list.removeAll { $0.context == nil }
            list.append(Entry(context: context))
        }
    }

    static func remove(_ context: IOContext) {
        entries.withLock { list in list.removeAll { $0.context == nil || $0.context === context } }
    }

    /// Returns when every turn that was running at the time of the call, on whichever context, is over.
    package static func waitForTurnBoundaries() async {
        let contexts = entries.withLock { list in list.compactMap(\.context) }
        for context in contexts { await context.turnBoundary() }
    }
}
