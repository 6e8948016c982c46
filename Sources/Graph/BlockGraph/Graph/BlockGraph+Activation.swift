import Glibc
import IOCore
package import StrataBase

// Active and inactive nodes (blockdev-set-active). An inactive node holds no permissions and no locks and serves no requests: its image is
// somebody else's for the moment, as during a migration. What it knows of the image is read again when it becomes active.

extension BlockGraph {
    /// Makes a node inactive with what only it uses below, or active with all that it needs below; nil means every node.
    /// - Throws: `.notFound`; who still uses a node; what a driver says. The graph is then as it was.
    package func setActive(_ isActive: Bool, nodeNamed name: String?) async throws(BlockError) {
        try await changes.withLock { () async throws(BlockError) in
            if let name, state.nodes[name] == nil { throw BlockError(.notFound, "Failed to find node with node-name='\(name)'") }
            let below = state.topologicalOrder(from: name.map { [$0] } ?? state.order)
            if isActive {
                try await activate(below.reversed().filter { state.nodes[$0]?.options.isActive == false })
            } else {
                try await inactivate(try inactivable(below, asked: name))
            }
        }
    }

    /// Those of the nodes, parents first, that can become inactive together: active ones without an active parent outside.
    private func inactivable(_ order: [String], asked: String?) throws(BlockError) -> [String] {
        var chosen: [String] = []
        var going: Set<String> = []
        for name in order {
            guard let record = state.nodes[name], record.options.isActive else { continue }
            let parents = record.parents.compactMap { state.edges[$0] }
            let staying = parents.contains { edge in
                if case .node(let parent) = edge.owner { return state.nodes[parent]?.options.isActive == true && !going.contains(parent) }
                return false
            }
            if staying {
                if name == asked { throw BlockError(.permissionConflict, "Node has active parent node") }
                continue
            }
            for edge in parents {
                guard case .backend(let backend) = edge.owner, !backend.allowsInactive, !edge.grant.used.isDisjoint(with: [.write, .writeUnchanged]) else { continue }
                throw BlockError(errno: EPERM, asked == nil ? "Failed to inactivate all nodes" : "Failed to inactivate node")
            }
            going.insert(name)
            chosen.append(name)
        }
        return chosen
    }

    private func inactivate(_ names: [String]) async throws(BlockError) {
        let section = await DrainedSection.begin(state.backends(above: names))
        defer { section.end() }
        // Parents first: what they write out goes through children that are still active.
        var done: [any Activating] = []
        do throws(BlockError) {
            for name in names {
                guard let driver = state.nodes[name]?.node.driver as? any Activating else { continue }
                try await driver.inactivate()
                done.append(driver)
            }
            try await changeLocked { change throws(BlockError) in change.setActive(false, names) }
        } catch {
            // They have forgotten what they gave out of their hands.
            for driver in done.reversed() {
                do throws(BlockError) { try await driver.activate() } catch { StandardStreams.warn("Going back to active: \(error)") }
            }
            throw error
        }
    }

    /// - Parameter names: children before parents.
    private func activate(_ names: [String]) async throws(BlockError) {
        let section = await DrainedSection.begin(state.backends(above: names))
        defer { section.end() }
        // Permissions and locks first: only then the image stays as it is read.
        try await changeLocked { change throws(BlockError) in change.setActive(true, names) }
        do throws(BlockError) {
            for name in names { try await (state.nodes[name]?.node.driver as? any Activating)?.activate() }
        } catch {
            do throws(BlockError) {
                try await changeLocked { change throws(BlockError) in change.setActive(false, names) }
            } catch {
                StandardStreams.warn("Going back to inactive: \(error)")
            }
            throw error
        }
    }
}

/// Knows things about its image that somebody else may change while the node is inactive.
package protocol Activating: BlockDriver {
    /// Writes everything out. No request runs, and none comes before `activate`.
    func inactivate() async throws(BlockError)
    /// Reads again what may have changed. The node has its permissions.
    func activate() async throws(BlockError)
}

extension GraphChange {
    func setActive(_ isActive: Bool, _ names: [String]) {
        for name in names {
            guard var options = state.nodes[name]?.options else { continue }
            options.isActive = isActive
            setOptions(options, of: name)
        }
    }
}
