import BlockGraph
package import StorageSchema

extension StorageService {
    /// Lists the exports with what their clients did, or the nodes.
    package func queryBlockstats(_ arguments: QueryBlockstatsArguments) async throws -> [BlockStats] {
        if arguments.queryNodes == true {
            return await graph.allNodes.map { StatisticsDescriber.stats(ofNode: $0) }
        }
        return await graph.devices.map { backend in
            var stats = StatisticsDescriber.stats(ofChainFrom: backend.node)
            stats.device = backend.device
            stats.stats = StatisticsDescriber.counts(of: backend.accounting, highestOffset: backend.node.statistics.highestWrittenOffset)
            return stats
        }
    }
}
