import BlockGraph
import IOCore
import StrataBase
import ToolSupport

/// An open image as the commands count it: in whole sectors, the rest of the last one zero.
struct PaddedImage: Sendable {
    let image: OpenImage
    private let storedLength: Int
    /// Bytes: a multiple of 512.
    let length: Int

    init(_ image: OpenImage) {
        self.image = image
        storedLength = image.backend.length
        length = storedLength.roundedUp(to: ConvertSource.sectorSize)
    }

    /// A stretch that is the same throughout.
    struct Extent: Sendable {
        /// Bytes; at least 1.
        var byteCount: Int
        var flags: BlockStatus.Flags
        /// How many layers lie above the one that decides.
        var depth: Int
        /// Where the stretch begins in `file`; nil when it lies nowhere in one piece.
        var offset: Int?
        /// The node that holds the bytes: a file, or what stands for one.
        var file: BlockNode?
        /// The bytes read as zero because the backing file of the layer at `depth` ends before them.
        var isBeyondBacking = false
        /// The bytes read as zero.
        var isZero: Bool { flags.contains(.zero) }
    }

    /// What lies at `position`, and how far it is the same.
    /// - Parameters:
    ///   - position: inside the image.
    ///   - limit: how far to look, in bytes; at least 1.
    func extent(at position: Int, limit: Int) async throws(BlockError) -> Extent {
        precondition(position < length && limit > 0, "a status is asked of a range inside the image")
        guard position < storedLength else {
            // Only files that are no whole number of sectors end so, and what they have lies where they say.
            let padding = BlockStatus.Flags([.zero, .allocated, .offsetValid])
            return Extent(byteCount: min(limit, length - position), flags: padding, depth: 0, offset: position, file: image.node)
        }
        let range = GuestRange(GuestOffset(position), byteCount: min(limit, storedLength - position))
        let (status, depth, node) = try await image.backend.blockStatus(of: range)
        var extent = Extent(byteCount: status.byteCount, flags: status.flags, depth: depth)
        extent.isBeyondBacking = !status.flags.contains(.allocated) && node.backingChild != nil
        if status.flags.contains(.offsetValid) {
            extent.offset = status.offset.rawValue
            extent.file = status.file?.node ?? node
        }
        return extent
    }

    /// Reads `target.byteCount` bytes at `position`.
    func read(_ target: IOVector, at position: Int) async throws(BlockError) {
        let inside = max(0, min(target.byteCount, storedLength - position))
        if inside < target.byteCount { target.slice(at: inside, byteCount: target.byteCount - inside).zero() }
        if inside == 0 { return }
        let vector = target.slice(at: 0, byteCount: inside)
        if image.backend.tryRead(vector, at: GuestOffset(position)) { return }
        try await image.backend.read(vector, at: GuestOffset(position))
    }
}
