package import StorageSchema
package import StrataBase

/// What a backup is to do, checked as far as that is possible without the graph. The refusals are in QEMU's words and order.
package struct BackupOptions: Sendable {
    package var source: String
    package var target: String
    package var sync: MirrorSyncMode
    package var bitmap: String?
    package var bitmapMode: BitmapSyncMode?
    package var compresses = false
    package var onSourceError = BlockdevOnError.report
    package var onTargetError = BlockdevOnError.report
    package var filterNodeName: String?
    package var discardsSource = false
    package var usesCopyRange = false
    /// Pieces under way at once.
    package var workers = 64
    /// The longest piece in bytes; nil for no limit.
    package var longestPiece: Int?
    package var minClusterSize: Int?

    package init(source: String, target: String, sync: MirrorSyncMode) {
        self.source = source
        self.target = target
        self.sync = sync
    }

    /// Whether only what the bitmap has is copied.
    var copiesBitmap: Bool { sync == .bitmap }

    /// Completes what follows from each other, and refuses what cannot be together.
    /// - Throws: `.invalidArgument`.
    package mutating func settle() throws(BlockError) {
        if sync == .incremental || sync == .bitmap, bitmap == nil {
            throw BlockError(.invalidArgument, "must provide a valid bitmap name for '\(sync.rawValue)' sync mode")
        }
        if sync == .incremental, let bitmapMode, bitmapMode != .onSuccess {
            throw BlockError(.invalidArgument, "Bitmap sync mode must be 'on-success' when using sync mode 'incremental'")
        }
        if sync == .incremental { (sync, bitmapMode) = (.bitmap, .onSuccess) }
        if bitmap == nil, bitmapMode != nil { throw BlockError(.invalidArgument, "Cannot specify bitmap sync mode without a bitmap") }
        if longestPiece == 0 { longestPiece = nil }
    }

    /// What is said about numbers, when the nodes are known.
    func checkNumbers() throws(BlockError) {
        guard (1...Int(Int32.max)).contains(workers) else { throw BlockError(.invalidArgument, "max-workers must be between 1 and \(Int32.max)") }
        if let longestPiece, longestPiece < 0 {
            throw BlockError(.invalidArgument, "max-chunk must be zero (which means no limit) or positive")
        }
        if let minClusterSize, minClusterSize < 0 {
            throw BlockError(.invalidArgument, "min-cluster-size too large: \(UInt64(bitPattern: Int64(minClusterSize))) > \(Int64.max)")
        }
    }

    /// What is said about a bitmap that was found.
    func checkBitmapMode() throws(BlockError) {
        guard bitmap != nil else { return }
        guard let bitmapMode else { throw BlockError(.invalidArgument, "Bitmap sync mode must be given when providing a bitmap") }
        if sync == .none { throw BlockError(.invalidArgument, "sync mode 'none' does not produce meaningful bitmap outputs") }
        if bitmapMode == .never, sync != .bitmap {
            throw BlockError(
                .invalidArgument, "Bitmap sync mode 'never' has no meaningful effect when combined with sync mode '\(sync.rawValue)'")
        }
    }
}
