package import NBDProtocol
package import StrataBase
import Synchronization

/// The exports of one server by name. Asked during handshakes, changed by the management side; any thread.
package final class NBDExportTable: Sendable, ExportDirectory {
    private struct Entries {
        var byName: [String: NBDExport] = [:]
        var order: [String] = []
    }

    private let entries = Mutex(Entries())

    package init() {}

    /// - Throws: `.alreadyExists` when the name is taken, `.invalidArgument` when it or the description is too long for the protocol.
    package func add(_ export: NBDExport) throws(BlockError) {
        guard export.name.utf8.count <= NBDLimit.stringByteCount else {
            throw BlockError(.invalidArgument, "export name '\(export.name.prefix(64))...' is longer than \(NBDLimit.stringByteCount) bytes")
        }
        guard (export.description?.utf8.count ?? 0) <= NBDLimit.stringByteCount else {
            throw BlockError(.invalidArgument, "the description of export '\(export.name)' is longer than \(NBDLimit.stringByteCount) bytes")
        }
        let isNew = entries.withLock { entries in
            if entries.byName[export.name] != nil { return false }
            entries.byName[export.name] = export
            entries.order.append(export.name)
            return true
        }
        guard isNew else { throw BlockError(.alreadyExists, "NBD server already has export named '\(export.name)'") }
        export.noteTable(self) { [weak self, weak export] in if let export { self?.withdraw(export) } }
    }

    /// Takes an export off the list. Clients that use it are not concerned.
    func withdraw(_ export: NBDExport) {
        entries.withLock { entries in
            guard entries.byName[export.name] === export else { return }
            entries.byName[export.name] = nil
            entries.order.removeAll { $0 == export.name }
        }
    }

    /// The export of that name. The empty name stands for the only export when there is just one.
    func find(_ name: String) -> NBDExport? {
        entries.withLock { entries in
            if let export = entries.byName[name] { return export }
            return name.isEmpty && entries.order.count == 1 ? entries.byName[entries.order[0]] : nil
        }
    }

    package func export(named name: String) -> ExportDescription? { find(name)?.wireDescription }

    package var listing: [(name: String, description: String?)] {
        entries.withLock { entries in entries.order.compactMap { entries.byName[$0] }.map { ($0.name, $0.description) } }
    }
}
