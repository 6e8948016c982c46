import BlockGraph
import IOCore
import StrataBase
import Synchronization

// From version 3 back to version 2, which has no feature bits, no zero clusters and 16-bit refcounts only.

extension QCOW2Driver {
    /// - Parameter size: the disk's, by then, in bytes.
    /// - Throws: what version 2 has no way to say.
    func checkDowngrade(size: Int) async throws(BlockError) {
        if geometry.hasExternalData { throw BlockError(.invalidArgument, "Cannot downgrade an image with a data file") }
        let features = opened.header.incompatible
        guard features.isEmpty else {
            throw BlockError(.invalidArgument, "Cannot downgrade an image with incompatible features 0x\(String(features.rawValue, radix: 16)) set")
        }
        if let bitmaps = opened.extensions.bitmaps, bitmaps.count > 0 {
            throw BlockError(.invalidArgument, "Cannot downgrade an image with persistent bitmaps; remove them first")
        }
        // A zero cluster of a snapshot cannot be expanded without changing the snapshot.
        for record in try await readSnapshotTable() {
            // Both are told by fields that version 2 does not ask for.
            guard record.diskSize ?? UInt64(size) == UInt64(size), record.stateSize <= UInt64(UInt32.max) else {
                throw BlockError(.unsupported, "Internal snapshots prevent downgrade of image")
            }
            guard record.l1TableOffset < UInt64(file.length), Int(record.l1Size) <= ClusterGeometry.maximumL1Bytes / 8 else {
                throw BlockError(.corruptImage, "The L1 table of snapshot '\(record.name)' is invalid; check the image")
            }
            for bits in try await file.readTable(at: HostOffset(Int(record.l1TableOffset)), Int(record.l1Size)) {
                let table = L1Entry(bits: bits).tableOffset
                if table == 0 { continue }
                let words = try await file.readWords(at: HostOffset(table), geometry.clusterSize / 8)
                if words.contains(where: { L2Entry(bits: $0).readsAsZero }) {
                    throw BlockError(.unsupported, "Cannot downgrade an image with a snapshot that has zero clusters: '\(record.name)'")
                }
            }
        }
    }

    func downgrade(_ progress: @Sendable (_ done: Int, _ total: Int) -> Void) async throws(BlockError) {
        try await expandZeroes(progress)
        try await rewriteHeader { $0.downgrade() }
    }

    /// Writes zero clusters out, or forgets them where nothing shows through.
    private func expandZeroes(_ progress: @Sendable (_ done: Int, _ total: Int) -> Void) async throws(BlockError) {
        let hasBacking = backing != nil || backingName != nil
        let end = length.roundedUp(to: geometry.clusterSize)
        let zeroes = IOBuffer(zeroed: max(geometry.clusterSize, 1 << 20))
        defer { withExtendedLifetime(zeroes) {} }
        var position = 0
        while position < end {
            let here = GuestOffset(position)
            let left = end - position
            let extent = try await step { state throws(Obstacle) in try state.extent(at: here, limit: left) }
            if extent.kind == .zero || extent.kind == .zeroAllocated {
                if hasBacking {
                    var done = 0
                    while done < extent.byteCount {
                        let count = min(zeroes.byteCount, extent.byteCount - done)
                        try await writePlain(zeroes.vector(at: 0, byteCount: count), at: here + done)
                        done += count
                    }
                } else {
                    try await unmap(from: here, to: here + extent.byteCount, .forget)
                }
            }
            position += extent.byteCount
            progress(position, end)
        }
    }
}
