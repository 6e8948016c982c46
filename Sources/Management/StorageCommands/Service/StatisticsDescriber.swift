import BlockGraph
import StorageSchema

/// Turns what was counted into what `query-blockstats` answers.
enum StatisticsDescriber {
    /// Answers do not nest deeper than this: clients have limits, and a chain can be thousands of images long.
    private static let deepestNesting = 200

    /// A node and those that hold its image, without backing files. Nodes count nothing but where the furthest write was; requests are counted
    /// where they enter the graph.
    static func stats(ofNode node: BlockNode) -> BlockStats {
        var stack = [node]
        while stack.count < deepestNesting, let below = stack[stack.count - 1].primaryChild?.node { stack.append(below) }
        var result: BlockStats?
        for node in stack.reversed() {
            var counts = counts(of: nil, highestOffset: node.statistics.highestWrittenOffset)
            (counts.accountInvalid, counts.accountFailed) = (false, false)
            result = BlockStats(nodeName: node.name, stats: counts, driverSpecific: specific(node), parent: result)
        }
        return result ?? BlockStats(nodeName: node.name, stats: counts(of: nil, highestOffset: 0))
    }

    /// A node, what holds its image, and its backing files.
    static func stats(ofChainFrom top: BlockNode) -> BlockStats {
        var chain = [top]
        while chain.count < deepestNesting, let below = chain[chain.count - 1].backingChild?.node { chain.append(below) }
        var result: BlockStats?
        for node in chain.reversed() {
            var stats = stats(ofNode: node)
            stats.backing = result
            result = stats
        }
        return result ?? stats(ofNode: top)
    }

    private static func specific(_ node: BlockNode) -> BlockStatsSpecific? {
        let discards = node.statistics.discards
        let counts = BlockStatsSpecificFile(
            discardNbOk: UInt64(discards.done), discardNbFailed: UInt64(discards.failed), discardBytesOk: UInt64(discards.byteCount))
        return switch node.formatName {
        case "file": BlockStatsSpecific(.file(counts))
        case "host_device": BlockStatsSpecific(.hostDevice(counts))
        default: nil
        }
    }

    /// - Parameter accounting: nil where nothing is counted.
    static func counts(of accounting: BackendAccounting?, highestOffset: Int) -> BlockDeviceStats {
        func totals(_ operation: AccountedOperation) -> BackendAccounting.Totals { accounting?.totals(operation) ?? BackendAccounting.Totals() }
        func histogram(_ operation: AccountedOperation) -> BlockLatencyHistogramInfo? {
            accounting?.histogram(operation).map { BlockLatencyHistogramInfo(boundaries: $0.boundaries, bins: $0.bins) }
        }
        let (read, write, flush, unmap) = (totals(.read), totals(.write), totals(.flush), totals(.unmap))
        return BlockDeviceStats(
            rdBytes: read.bytes, wrBytes: write.bytes, zoneAppendBytes: 0, unmapBytes: unmap.bytes,
            rdOperations: read.operations, wrOperations: write.operations, zoneAppendOperations: 0, flushOperations: flush.operations,
            unmapOperations: unmap.operations,
            rdTotalTimeNs: read.nanoseconds, wrTotalTimeNs: write.nanoseconds, zoneAppendTotalTimeNs: 0, flushTotalTimeNs: flush.nanoseconds,
            unmapTotalTimeNs: unmap.nanoseconds,
            wrHighestOffset: highestOffset, rdMerged: 0, wrMerged: 0, zoneAppendMerged: 0, unmapMerged: 0, idleTimeNs: accounting?.idleNanoseconds,
            failedRdOperations: read.failed, failedWrOperations: write.failed, failedZoneAppendOperations: 0,
            failedFlushOperations: flush.failed, failedUnmapOperations: unmap.failed,
            invalidRdOperations: read.invalid, invalidWrOperations: write.invalid, invalidZoneAppendOperations: 0,
            invalidFlushOperations: flush.invalid, invalidUnmapOperations: unmap.invalid,
            accountInvalid: true, accountFailed: true, timedStats: [],
            rdLatencyHistogram: histogram(.read), wrLatencyHistogram: histogram(.write), zoneAppendLatencyHistogram: histogram(.zoneAppend),
            flushLatencyHistogram: histogram(.flush))
    }
}
