package import BlockGraph
package import StrataBase

extension QCOW2Driver: Discarding {
    /// Frees whole clusters, and forgets whole subclusters. They read as zeroes afterwards, never as what a backing file has there.
    package func discard(_ range: GuestRange) async throws(BlockError) -> Support {
        if opened.header.version < 3, bytesInBacking(at: range.start, range.byteCount) > 0 { return .unsupported }
        try await prepareForWriting()
        let unit = geometry.subclusterSize
        let start = range.start.roundedUp(to: unit)
        let isLast = range.end.rawValue == length
        if isRawData {
            let end = isLast ? range.end : range.end.roundedDown(to: unit)
            if start < end { try await zeroRawData(GuestRange(start, byteCount: end - start), .mayUnmap) }
            return .done
        }
        let end = isLast ? GuestOffset(range.end.rawValue.roundedUp(to: geometry.clusterSize)) : range.end.roundedDown(to: unit)
        if start < end { try await unmap(from: start, to: end, opened.header.version >= 3 ? .zeroAndFree : .forget) }
        return .done
    }
}
