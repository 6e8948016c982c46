import BlockGraph
import IOCore
import StorageSchema
import StrataBase

extension FileDriver {
    /// How a file node wants its file, from the options that can change while it is open.
    struct Configuration: Hashable, Sendable {
        var isReadOnly: Bool
        var isAutoReadOnly: Bool
        /// O_DIRECT.
        var bypassesCache: Bool
        var mode: AsyncIOMode
        var takesLocks: Bool
        /// See `HostFile.maxBatch`.
        var maxBatch: Int
        /// When the image comes back from somebody else, what the page cache has of it is dropped.
        var dropsCache: Bool
        /// Whether that has worked is checked: for tests.
        var checksCacheIsDropped: Bool
        /// `locking=on`: a file system without locks is an error.
        var requiresLocks: Bool

        init(_ own: BlockdevOptionsFile, _ options: NodeOptions) throws(BlockError) {
            isReadOnly = options.isReadOnly
            isAutoReadOnly = options.isAutoReadOnly
            bypassesCache = options.bypassesCache
            mode =
                switch own.aio {
                case .threads: .threads
                case .native: .native
                case .ioUring: .ioUring
                case nil: .automatic
                }
            if mode == .native, !bypassesCache {
                throw BlockError(.invalidArgument, "aio=native was specified, but it requires cache.direct=on, which was not specified.")
            }
            maxBatch = max(0, own.aioMaxBatch ?? 0)
            dropsCache = own.dropCache ?? true
            checksCacheIsDropped = own.xCheckCacheDropped ?? false
            takesLocks = own.locking != .off && !options.forceShare
            requiresLocks = own.locking == .on
        }

        func openOptions(writable: Bool) -> HostFile.OpenOptions { HostFile.OpenOptions(writable: writable, direct: bypassesCache) }

        /// Whether the file is to be open for writing when the node's parents use `permissions`.
        func wantsWritable(for permissions: BlockPermissions) -> Bool {
            // Nobody is allowed to write to a read-only node: where somebody is, the node has become writable since it was opened.
            if !permissions.isDisjoint(with: [.write, .writeUnchanged, .resize]) { return true }
            return !isReadOnly && !isAutoReadOnly
        }

        func locks(for grant: PermissionGrant) -> ImageLocks {
            takesLocks ? ImageLocks(used: grant.used.rawValue, unshared: BlockPermissions.all.subtracting(grant.shared).rawValue) : ImageLocks()
        }
    }

    /// Image locks as bit masks over permissions.
    struct ImageLocks: Equatable {
        var used: UInt8 = 0
        var unshared: UInt8 = 0

        func union(_ other: ImageLocks) -> ImageLocks { ImageLocks(used: used | other.used, unshared: unshared | other.unshared) }
        func subtracting(_ other: ImageLocks) -> ImageLocks { ImageLocks(used: used & ~other.used, unshared: unshared & ~other.unshared) }
    }

    /// A file and the locks on it, ready to be used.
    struct PreparedAccess {
        var file: HostFile
        var locks: ImageLocks
    }
}

extension HostFile {
    func release(_ locks: FileDriver.ImageLocks) { releaseLocks(used: locks.used, unshared: locks.unshared) }
}
