import IOCore

/// The time during which no request runs on some nodes, because the gates of all backends above them are closed.
///
/// When `begin` returns, every request that had entered through these backends is over and later ones wait. See Docs/Concurrency.md for why.
struct DrainedSection: Sendable {
    private let backends: [BlockBackend]

    /// Closes the gates and waits for the requests behind them.
    static func begin(_ backends: [BlockBackend]) async -> DrainedSection {
        for backend in backends { backend.closeGate() }
        if !backends.isEmpty { await IOContextRegistry.waitForTurnBoundaries() }
        for backend in backends { await backend.waitUntilIdle() }
        return DrainedSection(backends: backends)
    }

    /// Lets requests in again.
    func end() {
        for backend in backends { backend.openGate() }
    }
}
