import BlockGraph
package import StorageSchema
import StrataBase

extension StorageService {
    /// Begins new histograms of how long the requests of an export take, or ends all of them.
    package func blockLatencyHistogramSet(_ arguments: BlockLatencyHistogramSetArguments) async throws {
        guard let backend = await graph.devices.first(where: { $0.device == arguments.id }) else {
            throw BlockError(.notFound, "Device '\(arguments.id)' not found")
        }
        let chosen: [(operation: AccountedOperation, name: String, boundaries: [UInt64]?)] = [
            (.read, "read", arguments.boundariesRead ?? arguments.boundaries), (.write, "write", arguments.boundariesWrite ?? arguments.boundaries),
            (.zoneAppend, "zone append", arguments.boundariesZap ?? arguments.boundaries),
            (.flush, "flush", arguments.boundariesFlush ?? arguments.boundaries),
        ]
        var histograms: [AccountedOperation: [UInt64]] = [:]
        for (operation, name, boundaries) in chosen {
            guard let boundaries else { continue }
            guard LatencyHistogram.accepts(boundaries) else {
                throw BlockError(.invalidArgument, "Device '\(arguments.id)' set \(name) boundaries fail: they must be above 0 and ascend")
            }
            histograms[operation] = boundaries
        }
        if histograms.isEmpty { backend.accounting.removeHistograms() } else { backend.accounting.startHistograms(histograms) }
    }
}
