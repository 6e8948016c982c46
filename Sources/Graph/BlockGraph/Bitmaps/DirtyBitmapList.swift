package import StrataBase
import Synchronization

/// The bitmaps and trackers of one node. Any thread; nothing suspends.
///
/// A driver that keeps bitmaps in its image makes the list (`BitmapPersisting`), so that both know the same ones; other nodes make their own.
package final class DirtyBitmapList: Sendable {
    private struct Contents: Sendable {
        /// The oldest first.
        var bitmaps: [DirtyBitmap] = []
        var observer: (@Sendable (_ isTracking: Bool) -> Void)?
    }

    private let contents = Mutex(Contents())

    package init() {}

    /// Has `observer` told, now and whenever it changes, whether there is anything to note. It runs under a lock: it must not wait.
    func observe(_ observer: @escaping @Sendable (_ isTracking: Bool) -> Void) {
        contents.withLock { contents in
            contents.observer = observer
            observer(!contents.bitmaps.isEmpty)
        }
    }

    /// The oldest first, anonymous ones included.
    package var all: [DirtyBitmap] { contents.withLock { $0.bitmaps } }
    /// Those that users see.
    package var named: [DirtyBitmap] { all.filter { $0.name != nil } }

    package func bitmap(named name: String) -> DirtyBitmap? { contents.withLock { $0.bitmaps.first { $0.name == name } } }

    /// - Throws: `.alreadyExists` for a name that there is.
    package func add(_ bitmap: DirtyBitmap) throws(BlockError) {
        let isNew = contents.withLock { contents in
            if let name = bitmap.name, contents.bitmaps.contains(where: { $0.name == name }) { return false }
            contents.bitmaps.append(bitmap)
            contents.observer?(true)
            return true
        }
        if !isNew { throw BlockError(.alreadyExists, "Bitmap already exists: \(bitmap.name ?? "")") }
    }

    package func remove(_ bitmap: DirtyBitmap) {
        contents.withLock { contents in
            contents.bitmaps.removeAll { $0 === bitmap }
            contents.observer?(!contents.bitmaps.isEmpty)
        }
    }

    /// Called when a write is over, successful or not.
    func note(_ range: GuestRange) {
        contents.withLock { contents in for index in contents.bitmaps.indices { contents.bitmaps[index].note(range) } }
    }

    /// The node has this size from now on.
    package func noteSize(_ byteCount: Int) {
        contents.withLock { contents in for index in contents.bitmaps.indices { contents.bitmaps[index].noteSize(byteCount) } }
    }
}

/// Keeps dirty bitmaps in its image.
package protocol BitmapPersisting: BlockDriver {
    /// The node's bitmaps. Those of the image are in it as soon as the node is open.
    var bitmaps: DirtyBitmapList { get }

    /// Whether one more bitmap could be stored.
    /// - Throws: why not.
    func checkRoom(forBitmapNamed name: String, granularity: Int) async throws(BlockError)

    /// Says in the image that its bitmaps are about to differ from what it has. The node may be written to. They are stored when nobody may write to it
    /// any more.
    func prepareBitmapChange() async throws(BlockError)

    /// Removes a bitmap from the image, if it is there. The node may be written to.
    func removeStoredBitmap(named name: String) async throws(BlockError)
}
