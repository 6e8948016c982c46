import BlockGraph
package import StorageSchema

extension StorageService {
    /// Closes a node that was added by itself and that nobody uses.
    package func blockdevDel(_ arguments: BlockdevDelArguments) async throws {
        try await graph.remove(nodeNamed: arguments.nodeName)
        threads.endUse(byNode: arguments.nodeName)
    }
}
