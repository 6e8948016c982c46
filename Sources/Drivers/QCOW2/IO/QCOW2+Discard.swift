package import BlockGraph
package import StrataBase

extension QCOW2Driver: Discarding {
    /// Frees whole clusters. They read as zeroes afterwards, never as what a backing file has there.
    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        if opened.header.version < 3, bytesInBacking(at: range.start, range.byteCount) > 0 { return .unsupported }
        try await prepareForWriting()
        let cluster = geometry.clusterSize
        let start = range.start.roundedUp(to: cluster)
        let end = range.end.rawValue == length ? GuestOffset(range.end.rawValue.roundedUp(to: cluster)) : range.end.roundedDown(to: cluster)
        if start < end { try await unmap(from: start, to: end, opened.header.version >= 3 ? .zeroAndFree : .forget) }
        return .done
    }
}
