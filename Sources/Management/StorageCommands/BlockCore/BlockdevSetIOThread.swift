import BlockGraph
import IOCore
package import StorageSchema
import StrataBase

extension StorageService {
    /// Moves a node to another I/O thread. Nodes are not bound to threads here: those who serve clients from the node follow, unless they were told to stay.
    package func xBlockdevSetIothread(_ arguments: XBlockdevSetIothreadArguments) async throws {
        let (context, threads, node) = (context, threads, arguments.nodeName)
        try await changes.withLock { () async throws(BlockError) in
            try await graph.move(node, isForced: arguments.force ?? false) { () throws(BlockError) -> IOContext in
                switch arguments.iothread {
                case .n: return context
                case .s(let name): return try threads.use(name, forNode: node)
                }
            }
        }
    }
}
