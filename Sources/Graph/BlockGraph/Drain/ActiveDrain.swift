package import StrataBase

/// A drained section that lives longer than one call: until it is ended, no request runs on some nodes, whatever becomes of the graph above
/// them. Held by the graph, and by whoever began it.
package final class ActiveDrain: Sendable {
    /// The nodes; nil means all that there are or come.
    let names: Set<String>?
    /// The backends whose gates it holds closed. Changed by the graph only.
    let closed: BackendList

    init(names: Set<String>?) {
        self.names = names
        closed = BackendList()
    }
}

/// The gates that one section holds. Only the graph's actor touches it.
final class BackendList: @unchecked Sendable {  // unchecked: see above
    var backends: [BlockBackend] = []
}

extension BlockGraph {
    /// Keeps requests away from the named nodes, and waits for those that are there. Sections nest and overlap freely.
    /// - Parameter names: nil for the whole graph.
    package func beginDrain(of names: Set<String>?) async -> ActiveDrain {
        let drain = ActiveDrain(names: names)
        // A change under way counts on the gates that it holds itself, and finds this one's when it commits.
        drains.append(drain)
        let doors = doors(of: drain)
        drain.closed.backends = doors
        _ = await DrainedSection.begin(doors)
        return drain
    }

    package func end(_ drain: ActiveDrain) {
        guard let index = drains.firstIndex(where: { $0 === drain }) else { return }
        drains.remove(at: index)
        for backend in drain.closed.backends { backend.openGate() }
        drain.closed.backends = []
    }

    /// Runs `body` while no request is on the named nodes.
    package func withDrained<Result: Sendable>(_ names: [String], _ body: () async throws(BlockError) -> Result) async throws(BlockError) -> Result {
        try await withDrain(Set(names), body)
    }

    /// Runs `body` while no request is on a node or on anything below it.
    package func withSubtreeDrained<Result: Sendable>(_ root: String, _ body: () async throws(BlockError) -> Result) async throws(BlockError) -> Result {
        try await withDrain(Set(state.topologicalOrder(from: [root])), body)
    }

    /// Runs `body` while no request is anywhere in the graph.
    package func withEverythingDrained<Result: Sendable>(_ body: () async throws(BlockError) -> Result) async throws(BlockError) -> Result {
        try await withDrain(nil, body)
    }

    private func withDrain<Result: Sendable>(_ names: Set<String>?, _ body: () async throws(BlockError) -> Result) async throws(BlockError) -> Result {
        let drain = await beginDrain(of: names)
        defer { end(drain) }
        return try await body()
    }

    private func doors(of drain: ActiveDrain) -> [BlockBackend] { drain.names.map { state.backends(above: $0) } ?? state.allBackends }

    /// Called when a change has been committed and before its own section ends: backends that have come above a drained node are closed
    /// without waiting, because no request is on them now; those that have gone are opened.
    func followDrains() {
        for drain in drains {
            let now = doors(of: drain)
            for backend in now where !drain.closed.backends.contains(where: { $0 === backend }) { backend.closeGate() }
            for backend in drain.closed.backends where !now.contains(where: { $0 === backend }) { backend.openGate() }
            drain.closed.backends = now
        }
    }
}

extension GraphState {
    var allBackends: [BlockBackend] {
        edges.values.compactMap { edge in if case .backend(let backend) = edge.owner { backend } else { nil } }
    }
}
