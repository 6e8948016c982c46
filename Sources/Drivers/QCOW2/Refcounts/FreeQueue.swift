import StrataBase

/// A run of host clusters that lose one reference each.
struct FreedRun: Hashable, Sendable {
    var start: HostOffset
    var clusterCount: Int
    /// Give the space back to the file below once the clusters are free.
    var isPunched: Bool
}

/// Clusters on their way from "no longer mapped" to "free". A value inside the image's `Mutex`.
///
/// They pass two gates. First the mapping without them must be on stable storage (`MetadataCommit` moves them from `unmapped` to `settling`).
/// Then the requests that may still read or write through the old mapping must be over (`InFlightIO`). Only then are they punched out of the
/// file, in this order: punch while the refcount still protects the cluster, then lower the refcount. A crash in between leaks.
struct FreeQueue: Sendable {
    private(set) var unmapped: [FreedRun] = []
    private(set) var unmappedClusters = 0
    /// Whether anything was ever put in.
    var hasEverFreed = false
    var settling: [(epoch: Int, runs: [FreedRun])] = []

    mutating func add(_ start: HostOffset, clusters: Int, clusterSize: Int, isPunched: Bool) {
        unmappedClusters += clusters
        hasEverFreed = true
        if let last = unmapped.indices.last, unmapped[last].isPunched == isPunched,
            unmapped[last].start + unmapped[last].clusterCount * clusterSize == start
        {
            unmapped[last].clusterCount += clusters
        } else {
            unmapped.append(FreedRun(start: start, clusterCount: clusters, isPunched: isPunched))
        }
    }

    mutating func takeUnmapped() -> [FreedRun] {
        defer {
            unmapped = []
            unmappedClusters = 0
        }
        return unmapped
    }

    /// Gives back what a failed commit took.
    mutating func restore(_ runs: [FreedRun]) {
        unmapped = runs + unmapped
        unmappedClusters += runs.reduce(0) { $0 + $1.clusterCount }
    }

    var isEmpty: Bool { unmapped.isEmpty && settling.isEmpty }
}
