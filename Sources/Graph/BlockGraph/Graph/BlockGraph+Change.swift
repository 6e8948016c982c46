import IOCore
package import StrataBase

extension BlockGraph {
    /// Changes the graph: `edit` works on a copy, and the result is put into force as a whole or not at all.
    ///
    /// One change at a time. Requests that could notice wait from before the drivers prepare until the change is in force.
    /// - Parameter edit: runs on the graph's context.
    /// - Throws: what `edit` throws; `.permissionConflict`; what a driver says that cannot follow. The graph is then as it was.
    package func change<Result: Sendable>(_ edit: (GraphChange) async throws(BlockError) -> Result) async throws(BlockError) -> Result {
        try await changes.withLock { () async throws(BlockError) -> Result in try await changeLocked(edit) }
    }

    /// The same for callers that hold `changes`.
    func changeLocked<Result: Sendable>(_ edit: (GraphChange) async throws(BlockError) -> Result) async throws(BlockError) -> Result {
        let change = beginChange()
        let result: Result
        do throws(BlockError) {
            result = try await edit(change)
            try await install(change)
        } catch {
            Trace.graphChangeFailed(reason: error.description)
            await change.abandon()
            throw error
        }
        await dropUnused(from: change.releasedNodes)
        return result
    }

    // MARK: Putting a change into force

    /// Computes permissions, drains, lets everybody prepare, and commits. On failure everybody is told to forget it and the state is as before.
    private func install(_ change: GraphChange) async throws(BlockError) {
        var next = change.state
        try next.refreshPermissions()
        Trace.graphChangeBegin(nodes: next.order.count, changed: next.touchedBelow.count)
        let section = await DrainedSection.begin(doors(next))
        defer { section.end() }
        try await prepare(change, next)
        await commit(change, next)
    }

    /// The backends whose requests could see the change: above what is disturbed, in the graph as it is and as it will be, and above
    /// nodes where writing begins or ends, because a driver may exchange its file then.
    private func doors(_ next: GraphState) -> [BlockBackend] {
        let names = next.disturbed.union(next.touchedBelow.filter { name in
            guard let old = state.nodes[name]?.cumulative.used, let new = next.nodes[name]?.cumulative.used else { return false }
            return !old.symmetricDifference(new).isDisjoint(with: [.write, .resize])
        })
        if names.isEmpty { return [] }
        var found: [ObjectIdentifier: BlockBackend] = [:]
        for backend in state.backends(above: names) + next.backends(above: names) { found[ObjectIdentifier(backend)] = backend }
        return Array(found.values)
    }

    /// - Parameter tolerates: a driver that cannot follow, to give something up above all, is reported and does not stop the change.
    private func prepare(_ change: GraphChange, _ next: GraphState, tolerates: Bool = false) async throws(BlockError) {
        var participants: [any ChangeParticipant] = []
        var prepared: [BlockNode] = []
        do throws(BlockError) {
            for name in Set(change.reparented) {
                guard let record = next.nodes[name], let driver = record.node.driver.asChildChanging else { continue }
                try await driver.check(children: next.children(of: record))
            }
            for participant in change.participants {
                try await participant.prepare()
                participants.append(participant)
            }
            for node in regranted(next) {
                do throws(BlockError) {
                    try await node.driver.preparePermissions(next.nodes[node.name]?.cumulative ?? .none)
                    prepared.append(node)
                } catch where tolerates {
                    StandardStreams.warn("Giving permissions back: \(error)")
                }
                Trace.graphPermissions(
                    node: node.name, used: UInt(next.nodes[node.name]?.cumulative.used.rawValue ?? 0),
                    shared: UInt(next.nodes[node.name]?.cumulative.shared.rawValue ?? 0))
            }
        } catch {
            for node in prepared.reversed() { await node.driver.abortPermissions() }
            for participant in participants.reversed() { await participant.abort() }
            throw error
        }
    }

    /// Nodes of which something else is wanted than before, children first: what a parent needs to follow is ready when it is asked.
    private func regranted(_ next: GraphState) -> [BlockNode] {
        next.touchedBelow.reversed().compactMap { name in
            guard let record = next.nodes[name] else { return nil }
            guard record.cumulative != state.nodes[name]?.cumulative || next.reconfigured.contains(name) else { return nil }
            return record.node
        }
    }

    private func commit(_ change: GraphChange, _ next: GraphState) async {
        var next = next
        let regranted = regranted(next)
        // The nodes that edges led to so far. Code of this turn that reads a size without being a request may still be looking at one.
        var replaced: [BlockNode] = []
        for name in next.disturbed {
            for id in next.nodes[name]?.parents ?? [] {
                guard let edge = next.edges[id], let node = next.nodes[edge.target]?.node, edge.child.node !== node else { continue }
                replaced.append(edge.child.node)
                edge.child.retarget(to: node)
                if case .backend(let backend) = edge.owner { backend.noteRoot(named: node.name) }
            }
        }
        for name in Set(change.reparented) {
            guard let record = next.nodes[name], let driver = record.node.driver.asChildChanging else { continue }
            driver.adopt(children: next.children(of: record))
        }
        for participant in change.participants { await participant.commit() }
        // Alignments and limits come from below, so the new ones are looked up from the bottom to the top.
        let affected = next.above(next.disturbed).nodes
        for name in next.topologicalOrder(from: Array(affected)).reversed() where affected.contains(name) {
            guard let record = next.nodes[name] else { continue }
            record.node.refresh(record.options)
            record.node.setHeight(1 + (next.children(of: record).map(\.node.height).max() ?? 0))
        }
        for name in next.touchedBelow {
            for id in next.nodes[name]?.parents ?? [] { if let edge = next.edges[id] { edge.child.grant(next.nodes[name]?.options.isActive == true ? edge.grant.used : []) } }
        }
        for node in regranted { await node.driver.commitPermissions() }
        for (id, edge) in state.edges where next.edges[id] == nil { edge.child.grant([]) }
        next.settle()
        state = next
        Trace.graphChangeEnd(nodes: next.order.count)
        followDrains()
        if !replaced.isEmpty {
            await IOContextRegistry.waitForTurnBoundaries()
            withExtendedLifetime(replaced) {}
        }
    }

    // MARK: Giving up

    /// Makes a change that takes nothing new and so cannot be refused: a node that fails to give something back keeps more than it needs.
    /// For callers that hold `changes`.
    func giveUp(_ edit: (GraphChange) -> Void) async {
        let change = beginChange()
        edit(change)
        await force(change)
        await dropUnused(from: change.releasedNodes)
    }

    /// Makes a change that must come about: what a job has put into the graph goes when the job has failed, also when the cause is a disk that fails, and
    /// drivers cannot write out what they would before they give up a permission.
    /// - Throws: for an edit that makes no sense, `.permissionConflict`. The graph is then as it was.
    package func changeRegardless(_ edit: (GraphChange) throws(BlockError) -> Void) async throws(BlockError) {
        try await changes.withLock { () async throws(BlockError) in
            let change = beginChange()
            try edit(change)
            var next = change.state
            try next.refreshPermissions()
            await force(change, next)
            await dropUnused(from: change.releasedNodes)
        }
    }

    /// Closes those of `names`, and what is below them, that nobody uses, and then gives back what they have held.
    private func dropUnused(from names: [String]) async {
        if names.isEmpty { return }
        let change = beginChange()
        let removed = change.removeUnused(from: names)
        if removed.isEmpty { return }
        // Parents first: a format writes its metadata through its file while that still has its permissions.
        for node in removed {
            Trace.graphNodeCloseBegin(node: node.name)
            defer { Trace.graphNodeCloseEnd(node: node.name) }
            do throws(BlockError) { try await node.driver.close() } catch { StandardStreams.warn(error.during("Closing node '\(node.name)'").description) }
        }
        await force(change)
        for node in removed { node.letGoOfChildren() }
    }

    private func force(_ change: GraphChange) async {
        var next = change.state
        do throws(BlockError) {
            try next.refreshPermissions()
        } catch {
            preconditionFailure("taking users away makes no conflict: \(error)")
        }
        await force(change, next)
    }

    private func force(_ change: GraphChange, _ next: GraphState) async {
        let section = await DrainedSection.begin(doors(next))
        defer { section.end() }
        do throws(BlockError) { try await prepare(change, next, tolerates: true) } catch { StandardStreams.warn("Giving permissions back: \(error)") }
        await commit(change, next)
    }
}

extension GraphState {
    /// The nodes whose permissions a change may alter: the touched ones and all below, parents first.
    var touchedBelow: [String] { topologicalOrder(from: order.filter(touched.contains)) }

    func children(of record: NodeRecord) -> [BlockChild] { record.children.compactMap { edges[$0]?.child } }
}
