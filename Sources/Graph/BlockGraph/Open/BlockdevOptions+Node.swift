import StorageSchema

extension NodeOptions {
    /// The node options of `options`. What is not said there comes from the parent whose inline child this is: cache modes and force-share
    /// always, write access for files (a backing file is opened read-only unless it says otherwise), as QEMU does.
    init(_ options: BlockdevOptions, inheriting parent: NodeOptions?, role: ChildRole) {
        self.init()
        let isBacking = role.contains(.copyOnWrite)
        isReadOnly = options.readOnly ?? (isBacking ? true : parent?.isReadOnly ?? false)
        isAutoReadOnly = options.autoReadOnly ?? (isBacking ? false : parent?.isAutoReadOnly ?? false)
        bypassesCache = options.cache?.direct ?? parent?.bypassesCache ?? false
        ignoresFlushes = options.cache?.noFlush ?? parent?.ignoresFlushes ?? false
        forceShare = options.forceShare ?? parent?.forceShare ?? false
        // A format passes on exactly the discards that it wants its file to see.
        discardsUnmap = options.discard.map { $0 == .unmap } ?? (parent != nil && !isBacking)
        detectZeroes = options.detectZeroes ?? .off
        // Not inherited: a child that nobody active uses holds nothing anyway.
        isActive = options.active ?? true
    }
}
