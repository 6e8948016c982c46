import StrataBase

extension BlockNode {
    /// The cluster size, in bytes, of the image that the node shows as it is; nil when that has no clusters.
    package var clusterSize: Int? {
        get async throws(BlockError) {
            var node = self
            while true {
                if let size = try await node.imageDescribing?.describeImage().clusterSize { return size }
                guard node.kind == .filter || node.formatName == "raw", let below = node.primaryChild?.node else { return nil }
                node = below
            }
        }
    }
}
