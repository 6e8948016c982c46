import StrataBase

/// What a repair makes of entries that break a rule of the format, before it counts what they refer to. A value; the same entry always becomes the same.
///
/// Nothing that can still be read changes what it reads as. What lies behind the end of the file is lost already: it reads as zeroes from now on, where it
/// would otherwise name whatever the file grows over it.
struct RepairRules: Sendable {
    let geometry: ClusterGeometry
    let version: UInt32
    let fileLength: Int
    /// Guest data lies in a file of its own, of which this one knows nothing.
    let hasExternalData: Bool

    private var wordsPerEntry: Int { geometry.clusterSize / 8 / geometry.l2Entries }

    /// Whether a range ends a cluster or more behind the end of the file.
    private func isOutside(_ offset: Int, _ byteCount: Int) -> Bool {
        let (end, overflow) = offset.addingReportingOverflow(byteCount)
        return overflow || end - fileLength >= geometry.clusterSize
    }

    /// - Returns: how many entries stay wrong, because nobody knows what they should be.
    func fix(l1: inout [UInt64]) -> Int {
        var left = 0
        for index in l1.indices where l1[index] != 0 {
            l1[index] &= ~L1Entry.reservedMask
            let offset = L1Entry(bits: l1[index]).tableOffset
            if !offset.isAligned(to: geometry.clusterSize) {
                left += 1
            } else if offset == 0 || isOutside(offset, geometry.clusterSize) {
                l1[index] = 0
            }
        }
        return left
    }

    /// - Returns: as above.
    func fix(l2: inout [UInt64]) -> Int {
        var left = 0
        for position in stride(from: 0, to: l2.count, by: wordsPerEntry) where l2[position] != 0 {
            let entry = L2Entry(bits: l2[position])
            if entry.isCompressed {
                l2[position] &= ~L2Entry.copiedFlag
                if hasExternalData || (wordsPerEntry == 2 && l2[position + 1] != 0) {
                    left += 1
                    continue
                }
                let data = CompressedCluster(bits: l2[position], in: geometry)
                if isOutside(data.offset.rawValue, data.byteCount) { clear(&l2, position) }
                continue
            }
            l2[position] &= ~L2Entry.reservedMask
            let host = entry.hostOffset
            if !host.isAligned(to: geometry.clusterSize) {
                // A cluster that holds no data can do without its place.
                if wordsPerEntry == 1, entry.readsAsZero {
                    clear(&l2, position)
                } else if wordsPerEntry == 2, SubclusterBitmap(bits: l2[position + 1]).allocated == 0 {
                    l2[position] = 0
                } else {
                    left += 1
                }
            } else if host != 0, !hasExternalData, isOutside(host, geometry.clusterSize) {
                clear(&l2, position)
            }
        }
        return left
    }

    private func clear(_ l2: inout [UInt64], _ position: Int) {
        l2[position] = version >= 3 && wordsPerEntry == 1 ? L2Entry.zeroFlag : 0
        // The upper half says which subclusters read as zeroes.
        if wordsPerEntry == 2 { l2[position + 1] = 0xffff_ffff_0000_0000 }
    }

    /// The snapshot's record as a version 3 image wants it; nil when it is so already.
    func fixed(_ record: SnapshotRecord, diskSize: Int) -> SnapshotRecord? {
        var new = record
        if new.extraData.count > SnapshotRecord.maximumExtraSize { new.extraData.removeLast(new.extraData.count - SnapshotRecord.maximumExtraSize) }
        if version >= 3, new.extraData.count < 16 {
            let stateSize = new.stateSize
            new.extraData = [UInt8](repeating: 0, count: 24)
            new.extraData.setBigEndian(stateSize, at: 0)
            new.extraData.setBigEndian(UInt64(diskSize), at: 8)
            new.extraData.setBigEndian(UInt64.max, at: 16)
        }
        return new == record ? nil : new
    }
}
