package import StrataBase
import Synchronization

/// The bitmaps and trackers of one node. Any thread; nothing suspends.
///
/// A driver that keeps bitmaps in its image makes the list (`BitmapPersisting`), so that both know the same ones; other nodes make their own.
package final class DirtyBitmapList: Sendable {
    private struct Content {
        /// The oldest first.
        var bitmaps: [DirtyBitmap] = []
        /// Images can have tens of thousands.
        var byName: [String: DirtyBitmap] = [:]
    }

    private let content = Mutex(Content())
    /// Whether there are any: read by every write, without the lock.
    private let isInUse = Atomic<Bool>(false)

    package init() {}

    /// Whether writes have to be noted.
    @inline(__always)
    var isTracking: Bool { isInUse.load(ordering: .relaxed) }

    /// The oldest first, anonymous ones included.
    package var all: [DirtyBitmap] { content.withLock { $0.bitmaps } }
    /// Those that users see.
    package var named: [DirtyBitmap] { all.filter { $0.name != nil } }

    package func bitmap(named name: String) -> DirtyBitmap? { content.withLock { $0.byName[name] } }

    /// - Throws: `.alreadyExists` for a name that there is.
    package func add(_ bitmap: DirtyBitmap) throws(BlockError) {
        let isNew = content.withLock { content in
            if let name = bitmap.name {
                if content.byName[name] != nil { return false }
                content.byName[name] = bitmap
            }
            content.bitmaps.append(bitmap)
            isInUse.store(true, ordering: .sequentiallyConsistent)
            return true
        }
        if !isNew { throw BlockError(.alreadyExists, "Bitmap already exists: \(bitmap.name ?? "")") }
    }

    package func remove(_ bitmap: DirtyBitmap) { remove(where: { $0 === bitmap }) }

    /// Takes out all that `isUnwanted` says.
    package func remove(where isUnwanted: (DirtyBitmap) -> Bool) {
        content.withLock { content in
            for bitmap in content.bitmaps where isUnwanted(bitmap) {
                if let name = bitmap.name { content.byName[name] = nil }
            }
            content.bitmaps.removeAll(where: isUnwanted)
            isInUse.store(!content.bitmaps.isEmpty, ordering: .sequentiallyConsistent)
        }
    }

    /// Called when a write is over, successful or not.
    func note(_ range: GuestRange) {
        content.withLock { for bitmap in $0.bitmaps { bitmap.note(range) } }
    }

    /// The node has this size from now on.
    package func noteSize(_ byteCount: Int) {
        content.withLock { for bitmap in $0.bitmaps { bitmap.noteSize(byteCount) } }
    }
}

/// Keeps dirty bitmaps in its image.
package protocol BitmapPersisting: BlockDriver {
    /// The node's bitmaps. Those of the image are in it as soon as the node is open.
    var bitmaps: DirtyBitmapList { get }

    /// Whether the image, as it is, can keep bitmaps at all.
    var canStoreBitmaps: Bool { get }

    /// Whether one more bitmap could be stored.
    /// - Throws: why not.
    func checkRoom(forBitmapNamed name: String, granularity: Int) async throws(BlockError)

    /// Says in the image that its bitmaps are about to differ from what it has. The node may be written to. They are stored when nobody may write to it
    /// any more.
    func prepareBitmapChange() async throws(BlockError)

    /// Removes a bitmap from the image, if it is there. The node may be written to.
    func removeStoredBitmap(named name: String) async throws(BlockError)
}
