import IOCore
import ManagedObjects
import StrataBase
import Synchronization

/// Which export keeps which I/O thread running. Any thread.
final class IOThreadTable: Sendable {
    private let objects: ObjectRegistry
    /// By the id of the export.
    private let uses = Mutex<[String: ObjectUse<IOThread>]>([:])

    init(_ objects: ObjectRegistry) { self.objects = objects }

    /// Keeps a thread running for an export, until `endUse`.
    /// - Throws: `.notFound`.
    func use(_ id: String, by export: String) throws(BlockError) -> IOContext {
        guard let use = objects.use(id, as: IOThread.self, by: "export '\(export)'") else {
            throw BlockError(.notFound, "iothread \"\(id)\" not found")
        }
        uses.withLock { $0[export] = use }
        return use.object.context
    }

    /// Called when an export is gone. Exports that use no thread are fine too.
    func endUse(by export: String) {
        // The thread may end with this use: not inside the lock.
        let ended = uses.withLock { $0.removeValue(forKey: export) }
        ended?.end()
    }
}
