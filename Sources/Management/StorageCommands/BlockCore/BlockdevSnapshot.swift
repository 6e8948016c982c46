import BlockGraph
package import StorageSchema

extension StorageService {
    /// Puts an overlay on top of a node.
    package func blockdevSnapshot(_ arguments: BlockdevSnapshot) async throws {
        try await run([SnapshotStep(self, node: arguments.node, overlay: arguments.overlay)])
    }
}
