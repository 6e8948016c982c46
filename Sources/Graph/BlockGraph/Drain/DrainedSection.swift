import IOCore

/// The time during which no request runs on some nodes, because the gates of all backends above them are closed.
///
/// When `begin` returns, every request that had entered through these backends is over and later ones wait. See Docs/Concurrency.md for why.
struct DrainedSection: Sendable {
    private let backends: [BlockBackend]

    /// Closes the gates and waits for the requests behind them.
    static func begin(_ backends: [BlockBackend]) async -> DrainedSection {
        if !backends.isEmpty { Trace.bdrvDrainBegin(backends: names(backends)) }
        for backend in backends { backend.closeGate() }
        if !backends.isEmpty { await IOContextRegistry.waitForTurnBoundaries() }
        await waitUntilIdle(backends)
        if !backends.isEmpty { Trace.bdrvDrainIdle(backends: names(backends)) }
        return DrainedSection(backends: backends)
    }

    /// Waits for the requests that have entered. Drivers that hold requests back let them go meanwhile.
    static func waitUntilIdle(_ backends: [BlockBackend]) async {
        let holders = holders(below: backends)
        for holder in holders { holder.beginDrain() }
        for backend in backends { await backend.waitUntilIdle() }
        for holder in holders { await holder.waitForOwnRequests() }
        for holder in holders { holder.endDrain() }
    }

    /// The drivers below that may hold requests back.
    private static func holders(below backends: [BlockBackend]) -> [any Draining] {
        var found: [any Draining] = []
        var visited: Set<String> = []
        var queue = backends.map(\.node)
        while let node = queue.popLast() {
            guard visited.insert(node.name).inserted else { continue }
            if let holder = node.draining { found.append(holder) }
            queue += node.children.map(\.node)
        }
        return found
    }

    /// Lets requests in again.
    func end() {
        for backend in backends { backend.openGate() }
        if !backends.isEmpty { Trace.bdrvDrainEnd(backends: Self.names(backends)) }
    }

    /// For traces.
    private static func names(_ backends: [BlockBackend]) -> String { backends.map(\.name).joined(separator: ", ") }
}
