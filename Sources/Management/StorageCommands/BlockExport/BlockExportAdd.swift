import BlockExports
import BlockGraph
import IOCore
package import StorageSchema
import StrataBase

extension StorageService {
    /// Gives clients access to a node.
    package func blockExportAdd(_ arguments: BlockExportOptions) async throws {
        try await changes.withLock { () async throws(BlockError) in
            try checkNotShuttingDown()
            try await exports.checkNewID(arguments.id)
            guard let node = await graph.node(named: arguments.nodeName) else {
                throw BlockError(.notFound, "Cannot find device='' nor node-name='\(arguments.nodeName)'")
            }
            if arguments.writable == true, node.isReadOnly {
                throw BlockError(.readOnly, "Cannot export read-only node '\(node.name)' as writable")
            }
            if arguments.allowInactive != true { try await graph.setActive(true, nodeNamed: node.name) }
            var served = await graph.context(ofNodeNamed: node.name) ?? context
            if let thread = arguments.iothread { served = try threads.use(thread, by: arguments.id) }
            // Whoever says where, or sees to that himself, gets what he says.
            let spares = arguments.iothread == nil && arguments.fixedIothread != true && served === context ? spareThreads : nil
            do throws(BlockError) {
                try await ExportCatalog.add(arguments, of: graph, on: served, spares, server: nbdServer)
            } catch {
                threads.endUse(by: arguments.id)
                throw error
            }
        }
    }
}
