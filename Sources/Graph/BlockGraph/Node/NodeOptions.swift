package import StorageSchema
import StrataBase

/// The options that every node has, whatever its driver.
package struct NodeOptions: Sendable, Hashable {
    package var isReadOnly = false
    /// Why the node is read-only although nobody asked for that: what stopped it from being writable when it was opened with auto-read-only.
    package var readOnlyCause: String?
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
    /// Only the image itself was wanted, not the files that it names: no backing file, no data file.
    package var isAlone = false
    /// The format is a guess, and the guess was `raw`: no write may make the image look like something else.
    package var isProbedRaw = false

    /// The node may be used: it holds permissions and locks. An inactive one belongs to somebody else for the moment (migration).
    package var isActive = true

    package init() {}

    /// - Throws: `.invalidArgument` for options that contradict each other.
    func refuseContradictions() throws(BlockError) {
        if forceShare, !isReadOnly { throw BlockError(.invalidArgument, "force-share=on can only be used with read-only images") }
        if detectZeroes == .unmap, !discardsUnmap {
            throw BlockError(.invalidArgument, "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap")
        }
    }

    /// Settles what becomes of the options on a node whose driver cannot write.
    /// - Throws: `.readOnly` when they insist on it.
    mutating func settle(forReadOnlyDriver driver: String) throws(BlockError) {
        if isReadOnly { return }
        guard isAutoReadOnly else { throw BlockError(.readOnly, "Image is read-only", hint: "Images of format '\(driver)' can only be read.") }
        isReadOnly = true
        readOnlyCause = "images of format '\(driver)' can only be read"
    }

    /// The refusal of somebody who wants to write to the node with these options.
    func readOnlyError(ofNode name: String) -> BlockError {
        BlockError(.readOnly, "Block node '\(name)' is read-only" + (readOnlyCause.map { ": \($0)" } ?? ""))
    }
}
