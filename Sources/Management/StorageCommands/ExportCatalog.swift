import BlockGraph
import IOCore
import NBDServer
import StorageSchema
import StrataBase

/// The types of exports of this build: the one place that a new type is added to. The compiler asks for it when the schema gains one.
enum ExportCatalog {
    /// Makes an export and starts to serve it.
    /// - Parameters:
    ///   - server: the NBD server, if one runs.
    ///   - context: where clients are served.
    ///   - spareThreads: where several clients of one export are served too; nil: only there.
    /// - Throws: what is wrong with the options, or why the node cannot be used so; then nothing remains.
    static func add(_ options: BlockExportOptions, of graph: BlockGraph, on context: IOContext, _ spareThreads: SpareThreads?, server: NBDServer?) async throws(BlockError) {
        switch options.branch {
        case .nbd:
            guard let server else { throw BlockError(.invalidArgument, "NBD server not running") }
            var further: (@Sendable () -> [IOContext])?
            if let spareThreads { further = { spareThreads.take() } }
            try await server.addExport(options, graph: graph, contexts: [context], furtherContexts: further)
        }
    }
}
