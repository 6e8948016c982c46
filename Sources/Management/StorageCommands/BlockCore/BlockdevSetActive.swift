import BlockGraph
package import StorageSchema

extension StorageService {
    /// Makes a node, or all of them, active or inactive.
    package func blockdevSetActive(_ arguments: BlockdevSetActiveArguments) async throws {
        try checkNotShuttingDown()
        try await graph.setActive(arguments.active, nodeNamed: arguments.nodeName)
    }
}
