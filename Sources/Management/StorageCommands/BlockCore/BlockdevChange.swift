import BlockGraph
package import StorageSchema

extension StorageService {
    /// Adds a node to the children of another, or takes a child away.
    package func xBlockdevChange(_ arguments: XBlockdevChangeArguments) async throws {
        try await graph.changeMembers(of: arguments.parent, removing: arguments.child, adding: arguments.node)
    }
}
