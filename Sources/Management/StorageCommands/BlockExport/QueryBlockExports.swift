import BlockExports
package import StorageSchema
import StrataBase

extension StorageService {
    /// Lists the exports, the newest first.
    package func queryBlockExports() async throws -> [BlockExportInfo] {
        try await exports.summaries.reversed().map { summary in
            guard let type = BlockExportType(rawValue: summary.typeName) else {
                throw BlockError(.unsupported, "Export '\(summary.id)' is of type '\(summary.typeName)', which the schema does not know")
            }
            return BlockExportInfo(id: summary.id, type: type, nodeName: summary.nodeName, shuttingDown: summary.isShuttingDown)
        }
    }
}
