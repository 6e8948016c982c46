import BlockGraph
package import StorageSchema
import StrataBase

extension StorageService {
    /// Opens a node, and those that its definition contains. Nothing of a definition that fails remains.
    package func blockdevAdd(_ arguments: BlockdevOptions) async throws {
        try checkNotShuttingDown()
        guard arguments.nodeName != nil else { throw BlockError(.invalidArgument, "'node-name' must be specified for the root node") }
        try await graph.add(arguments)
    }
}
