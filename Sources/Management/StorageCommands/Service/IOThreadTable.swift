import IOCore
import ManagedObjects
import StrataBase
import Synchronization

/// Which export or node keeps which I/O threads running. Any thread.
final class IOThreadTable: Sendable {
    private let objects: ObjectRegistry
    /// By the id of the export, or `node` and the node's name (which no id looks like). Clients stay on the thread where they began, so that a
    /// node that moves keeps its older threads too.
    private let uses = Mutex<[String: [ObjectUse<IOThread>]]>([:])

    init(_ objects: ObjectRegistry) { self.objects = objects }

    /// Keeps a thread running for an export, until `endUse`.
    /// - Throws: `.notFound`.
    func use(_ id: String, by export: String) throws(BlockError) -> IOContext {
        guard let use = objects.use(id, as: IOThread.self, by: "export '\(export)'") else {
            throw BlockError(.notFound, "iothread \"\(id)\" not found")
        }
        uses.withLock { $0[export, default: []].append(use) }
        return use.object.context
    }

    /// Keeps a thread running for a node that moves there, until `endUse(byNode:)`.
    /// - Throws: `.notFound`.
    func use(_ id: String, forNode node: String) throws(BlockError) -> IOContext {
        guard let use = objects.use(id, as: IOThread.self, by: "node '\(node)'") else {
            throw BlockError(.notFound, "Cannot find iothread \(id)")
        }
        uses.withLock { $0["node \(node)", default: []].append(use) }
        return use.object.context
    }

    /// Called when an export is gone. Exports that use no thread are fine too.
    func endUse(by export: String) {
        // The thread may end with this use: not inside the lock.
        let ended = uses.withLock { $0.removeValue(forKey: export) } ?? []
        for use in ended { use.end() }
    }

    /// Called when a node is gone. Nodes that use no thread are fine too.
    func endUse(byNode node: String) { endUse(by: "node \(node)") }
}
