import BlockExports
package import StorageSchema

extension StorageService {
    /// Removes an export. With mode `hard` clients may have requests under way: an event says when the last is over. Without clients the export
    /// is gone when the answer comes, so that its node can be removed next.
    package func blockExportDel(_ arguments: BlockExportDelArguments) async throws {
        let isHard = arguments.mode == .hard
        try await exports.remove(id: arguments.id, mode: isHard ? .hard : .safe)
        if !isHard { await exports.removeAll { $0.id == arguments.id } }
    }
}
