import BlockExports
package import StorageSchema

extension StorageService {
    /// Starts to remove an export. An event says when it is gone.
    package func blockExportDel(_ arguments: BlockExportDelArguments) async throws {
        try await exports.remove(id: arguments.id, mode: arguments.mode == .hard ? .hard : .safe)
    }
}
