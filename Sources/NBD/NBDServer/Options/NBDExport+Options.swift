package import BlockGraph
package import IOCore
import NBDProtocol
package import StorageSchema
package import StrataBase

extension NBDServer {
    /// Makes an NBD export as `block-export-add` and `--export` describe it, and offers it.
    /// - Parameters:
    ///   - contexts: where its clients are served; at least one.
    ///   - allowsSeveralConnections: false for a server that takes one client at a time.
    /// - Throws: what is wrong with the options, or why the node cannot be used so; then nothing remains.
    @discardableResult
    package func addExport(
        _ options: BlockExportOptions, graph: BlockGraph, contexts: [IOContext], allowsSeveralConnections: Bool = true
    ) async throws(BlockError) -> NBDExport {
        guard case .nbd(let own) = options.branch else { throw BlockError(.invalidArgument, "block export '\(options.id)' is not an NBD export") }
        if own.bitmaps?.isEmpty == false { throw BlockError(.unsupported, "Dirty bitmaps of NBD exports are not supported yet") }
        let metaContexts: [MetaContext] = own.allocationDepth == true ? [.baseAllocation, MetaContext(.allocationDepth, identifier: 1)] : [.baseAllocation]
        let isWritable = options.writable ?? false
        // A client knows the size from its handshake: nobody may change it.
        let grant = PermissionGrant(
            used: isWritable ? [.consistentRead, .write] : .consistentRead, shared: BlockPermissions.all.subtracting(.resize))
        let backend = try await graph.makeBackend(
            named: "block export '\(options.id)'", device: options.id, on: options.nodeName, grant, allowsInactive: options.allowInactive ?? false)
        let export = NBDExport(
            id: options.id, name: own.name ?? options.nodeName, description: own.description, isWritable: isWritable,
            writesThrough: options.writethrough ?? false, backend: backend, contexts: contexts, metaContexts: metaContexts,
            allowsSeveralConnections: allowsSeveralConnections, release: { await graph.release(backend) })
        if options.fixedIothread == true {
            backend.setPlacement(.fixed)
        } else {
            backend.setPlacement(.follows { [weak export] context in export?.move(to: context) })
        }
        do throws(BlockError) {
            try await offer(export)
        } catch {
            await export.shutDown()
            throw error
        }
        return export
    }
}
