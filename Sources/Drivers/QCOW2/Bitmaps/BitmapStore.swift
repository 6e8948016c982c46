import BlockGraph
import IOCore
import StrataBase
import Synchronization

/// What an open image knows about its bitmaps on disk, beside those in memory.
///
/// On disk all bitmaps are in use from before the first write until they are stored: a crash in between leaves them so, and whoever opens the
/// image next knows that they lack writes. They are stored when nobody may write any more: `preparePermissions`, `inactivate`, `close`.
final class BitmapStore: Sendable {
    struct Content: Sendable {
        /// The directory as it is on disk, entries with their tables.
        var directory: [StoredBitmap] = []
        var directoryOffset = 0
        /// The bits that the entries' tables lead to, by name; shares memory with the bitmaps themselves as long as they are equal.
        var saved: [String: HierarchicalBitmap] = [:]
        /// The header's extension is there and valid: the autoclear bit says so.
        var isInForce = false
        /// A write of the directory, or of the header that names it, has failed and may have reached the disk all the same. Everything that either
        /// may name stays allocated, and the next directory is written to a place of its own.
        var isInDoubt = false
        /// The image's bitmaps are in memory. Not so where somebody has opened it for its metadata only, until he writes.
        var isLoaded = false
    }

    /// The node's bitmaps.
    let bitmaps = DirtyBitmapList()
    let content = Mutex(Content())
    /// One change of the directory at a time. Spans metadata I/O; taken before `commits`.
    let lock = AsyncMutex()

    /// Those in memory that belong into the image: the newest first.
    var wanted: [DirtyBitmap] { bitmaps.named.reversed().filter { $0.isPersistent && !$0.isRetired && !$0.isInconsistent } }
    /// Names of those in the image that cannot be trusted and stay there until somebody removes them.
    var inconsistentNames: Set<String> { Set(bitmaps.named.filter { $0.isPersistent && !$0.isRetired && $0.isInconsistent }.compactMap(\.name)) }
}

extension BitmapStore.Content {
    /// An image may have tens of thousands. No two entries of a directory have one name.
    var entriesByName: [String: StoredBitmap] { Dictionary(directory.map { ($0.name, $0) }) { first, _ in first } }

    /// Every host cluster that the directory, the tables and the bits take.
    func clusters(_ geometry: ClusterGeometry) -> [HostRun] {
        var runs = directory.flatMap { $0.clusters(geometry) }
        if !directory.isEmpty { runs.append(HostRun(directoryOffset, byteCount: directory.encodedSize, geometry)) }
        return runs
    }
}

extension StoredBitmap {
    /// The host clusters of the table and of what it leads to. None of a damaged bitmap: what its table names may be anybody's, and must not become free
    /// with it. A check finds what is lost by that.
    func clusters(_ geometry: ClusterGeometry) -> [HostRun] {
        if isDamaged { return [] }
        return [HostRun(tableOffset, byteCount: tableSize * 8, geometry)]
            + table.compactMap { $0 & Self.offsetMask == 0 ? nil : HostRun(Int($0 & Self.offsetMask), byteCount: 1, geometry) }
    }
}

/// Host clusters in a row.
struct HostRun: Hashable, Sendable {
    /// The first one's number.
    let first: Int
    let count: Int

    init(_ offset: Int, byteCount: Int, _ geometry: ClusterGeometry) {
        first = offset >> geometry.clusterBits
        count = geometry.clusters(byteCount)
    }
}
