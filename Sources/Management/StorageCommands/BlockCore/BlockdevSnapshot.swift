import BlockGraph
package import StorageSchema

extension StorageService {
    /// Puts an overlay on top of a node.
    package func blockdevSnapshot(_ arguments: BlockdevSnapshotArguments) async throws {
        try await graph.snapshot(of: arguments.node, overlay: arguments.overlay)
    }
}
