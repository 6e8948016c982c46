package import BlockGraph
package import IOCore
import NBDProtocol
package import StorageSchema
package import StrataBase

extension NBDServer {
    /// Makes an NBD export as `block-export-add` and `--export` describe it, and offers it.
    /// - Parameters:
    ///   - contexts: where its clients are served; at least one.
    ///   - furtherContexts: asked when a second client comes, for more of them.
    ///   - allowsSeveralConnections: false for a server that takes one client at a time.
    /// - Throws: what is wrong with the options, or why the node cannot be used so; then nothing remains.
    @discardableResult
    package func addExport(
        _ options: BlockExportOptions, graph: BlockGraph, contexts: [IOContext], furtherContexts: (@Sendable () -> [IOContext])? = nil,
        allowsSeveralConnections: Bool = true
    ) async throws(BlockError) -> NBDExport {
        guard case .nbd(let own) = options.branch else { throw BlockError(.invalidArgument, "block export '\(options.id)' is not an NBD export") }
        var metaContexts: [MetaContext] = own.allocationDepth == true ? [.baseAllocation, MetaContext(.allocationDepth, identifier: 1)] : [.baseAllocation]
        let isWritable = options.writable ?? false
        // A client knows the size from its handshake: nobody may change it.
        let grant = PermissionGrant(
            used: isWritable ? [.consistentRead, .write] : .consistentRead, shared: BlockPermissions.all.subtracting(.resize))
        let backend = try await graph.makeBackend(
            named: "block export '\(options.id)'", device: options.id, on: options.nodeName, grant, allowsInactive: options.allowInactive ?? false)
        let shown: [DirtyBitmap]
        do throws(BlockError) {
            shown = try await graph.takeBitmaps((own.bitmaps ?? []).map(\.reference), forUserOf: options.nodeName, isReadOnly: !isWritable)
        } catch {
            await graph.release(backend)
            throw error
        }
        var bitmaps: [UInt32: DirtyBitmap] = [:]
        for (number, bitmap) in shown.enumerated() {
            let context = MetaContext(.dirtyBitmap(bitmap.name ?? ""), identifier: 2 + UInt32(number))
            metaContexts.append(context)
            bitmaps[context.identifier] = bitmap
        }
        let export = NBDExport(
            id: options.id, name: own.name ?? options.nodeName, description: own.description, isWritable: isWritable,
            writesThrough: options.writethrough ?? false, backend: backend, contexts: contexts, furtherContexts: furtherContexts, metaContexts: metaContexts, bitmaps: bitmaps,
            allowsSeveralConnections: allowsSeveralConnections,
            release: {
                for bitmap in shown { bitmap.setBusy(false) }
                await graph.release(backend)
            })
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

extension BlockDirtyBitmapOrStr {
    /// Node, if one is said, and name.
    fileprivate var reference: (node: String?, name: String) {
        switch self {
        case .local(let name): (nil, name)
        case .external(let bitmap): (bitmap.node, bitmap.name)
        }
    }
}
