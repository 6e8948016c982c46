package import BlockGraph
import IOCore
import StorageSchema
package import StrataBase
import Synchronization

extension QCOW2Driver: BitmapPersisting {
    package var bitmaps: DirtyBitmapList { bitmapStore.bitmaps }

    package var canStoreBitmaps: Bool { opened.header.version >= 3 }

    package func checkRoom(forBitmapNamed name: String, granularity: Int) async throws(BlockError) {
        func refusal(_ reason: String) -> BlockError { BlockError(.unsupported, reason) }
        if !canStoreBitmaps { throw refusal("Cannot store dirty bitmaps in qcow2 v2 files") }
        guard StoredBitmap.granularityBits.contains(UInt8(clamping: granularity.trailingZeroBitCount)) else {
            throw refusal("Granularity is outside of what an image can have")
        }
        if name.utf8.count > StoredBitmap.maximumNameSize { throw refusal("Name length exceeds maximum (\(StoredBitmap.maximumNameSize) characters)") }
        let present = bitmapStore.bitmaps.named.filter(\.isPersistent)
        if present.count >= StoredBitmap.maximumCount { throw refusal("Maximum number of persistent bitmaps is already reached") }
        let size = present.reduce(StoredBitmap.fixedSize + name.utf8.count + 7) { $0 + StoredBitmap.fixedSize + ($1.name ?? "").utf8.count + 7 }
        if size > StoredBitmap.maximumDirectorySize { throw refusal("Not enough space in the bitmap directory") }
        if length.dividedRoundingUp(by: granularity).dividedRoundingUp(by: 8) > StoredBitmap.maximumDataSize {
            throw refusal("Too much space will be occupied by the bitmap. Use larger granularity")
        }
    }

    package func prepareBitmapChange() async throws(BlockError) { try await prepareForWriting() }

    package func removeStoredBitmap(named name: String) async throws(BlockError) { try await dropStoredBitmap(named: name) }

    /// What `info` tells about the bitmaps on disk; nil without any.
    func describeBitmaps() async throws(BlockError) -> [Qcow2BitmapInfo]? {
        let content = bitmapStore.content.withLock { $0 }
        let directory = content.isLoaded ? content.directory : try await Self.readBitmapDirectory(of: file, opened)
        if directory.isEmpty { return nil }
        return directory.map { entry in
            var flags: [Qcow2BitmapInfoFlags] = []
            if entry.flags.contains(.inUse) { flags.append(.inUse) }
            if entry.flags.contains(.auto) { flags.append(.auto) }
            return Qcow2BitmapInfo(name: entry.name, granularity: 1 << UInt32(entry.granularityBits), flags: flags)
        }
    }

    /// Host clusters of bitmaps, for those who must not write over them.
    var bitmapClusters: [HostRun] { bitmapStore.content.withLock { $0.clusters(geometry) } }
}

extension QCOW2Driver {
    /// Where the directory lies now.
    var bitmapDirectoryPlace: BitmapsExtension? {
        let content = bitmapStore.content.withLock { $0 }
        if !content.isLoaded { return opened.bitmapsInForce }
        if content.directory.isEmpty { return nil }
        return BitmapsExtension(count: content.directory.count, directorySize: content.directory.encodedSize, directoryOffset: content.directoryOffset)
    }
}
