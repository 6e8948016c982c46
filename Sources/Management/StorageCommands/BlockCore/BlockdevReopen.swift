import BlockGraph
package import StorageSchema

extension StorageService {
    /// Gives open nodes other options, all of them or none.
    package func blockdevReopen(_ arguments: BlockdevReopenArguments) async throws {
        try checkNotShuttingDown()
        try await graph.reopen(arguments.options)
    }
}
