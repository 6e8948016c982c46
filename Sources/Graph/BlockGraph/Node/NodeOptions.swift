package import StorageSchema

/// The options that every node has, whatever its driver.
package struct NodeOptions: Sendable, Hashable {
    package var isReadOnly = false
    /// Open read-only when writing is not possible, and become writable when somebody needs it.
    package var isAutoReadOnly = false
    /// O_DIRECT.
    package var bypassesCache = false
    /// Flushes are dropped: fast, and everything is lost in a crash.
    package var ignoresFlushes = false
    /// Discards are passed to the driver rather than dropped.
    package var discardsUnmap = false
    package var detectZeroes: BlockdevDetectZeroesOptions = .off
    /// Open although another process uses the image; for looking only.
    package var forceShare = false

    package init() {}
}
