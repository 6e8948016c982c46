package import BlockGraph
package import StrataBase

/// In which units a disk is copied into a target.
package enum CopyGeometry {
    /// Less is never copied, in bytes: a table of what was copied for small units costs more than it saves.
    private static let smallestCluster = 65536

    /// The target's own clusters, if it has any, so that none is written in parts.
    /// - Parameter minimum: what a user wants at least: a power of two.
    /// - Throws: `.invalidArgument`.
    package static func clusterSize(of target: BlockNode, atLeast minimum: Int?) async throws(BlockError) -> Int {
        var size = smallestCluster
        if let minimum, minimum > 0 {
            let largest = HierarchicalBitmap.granularities.upperBound
            guard minimum <= largest else {
                throw BlockError(.invalidArgument, "Cannot create block-copy-state: min-cluster-size too large: \(minimum) > \(largest)")
            }
            guard minimum.isPowerOfTwo else {
                throw BlockError(.invalidArgument, "Cannot create block-copy-state: min-cluster-size needs to be a power of 2")
            }
            size = max(size, minimum)
        }
        return max(size, try await target.clusterSize ?? 0)
    }

    /// Whether other layers show through where a node has nothing of its own.
    package static func hasBacking(_ node: BlockNode) -> Bool {
        var node = node
        while let child = node.chainChild {
            if child.role.contains(.copyOnWrite) { return true }
            node = child.node
        }
        return false
    }

    /// The node below a disk's own image in its backing chain; nil when it has none.
    package static func backing(of node: BlockNode) -> BlockNode? {
        var node = node
        while let child = node.chainChild {
            node = child.node
            if child.role.contains(.copyOnWrite) { return node }
        }
        return nil
    }
}
