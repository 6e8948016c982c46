import BlockCopy
import BlockGraph
import IOCore
import StrataBase
import Synchronization

/// What an image shows of its old backing file and would not show of the new one, as a source for a copy into the image itself.
final class RebaseSource: CopySource {
    private let overlay: BlockChild
    private let newBase: BlockChild?
    private let oldContents: ContentMap
    private let newContents: ContentMap
    /// Bytes that are copied or left out together.
    private let unit: Int
    private let names = Mutex(NodeDescriptions())

    /// Where the image has no clusters.
    static let standardUnit = 64 << 10
    /// Bytes that are compared at once.
    private static let pieceSize = 256 << 10

    /// - Parameter oldBase: nil where what the image does not hold reads as zero.
    init(_ overlay: BlockChild, oldBase: BlockNode?, newBase: BlockChild?, unit: Int) {
        self.overlay = overlay
        self.newBase = newBase
        oldContents = ContentMap(oldBase)
        newContents = ContentMap(newBase?.node)
        self.unit = unit
    }

    var length: Int { overlay.length }

    func tryRead(_ data: IOVector, at position: Int) -> Bool { overlay.tryRead(data, at: GuestOffset(position)) }
    func read(_ data: IOVector, at position: Int) async throws(BlockError) { try await overlay.read(data, at: GuestOffset(position)) }

    func run(at position: Int, limit: Int) async throws(BlockError) -> CopyRun {
        let own = try await overlay.blockStatus(of: GuestRange(GuestOffset(position), byteCount: min(limit, length) - position), precise: false)
        if own.flags.contains(.allocated) { return CopyRun(.nothing, position..<position + own.byteCount) }
        let old = try await oldContents.content(at: position, byteCount: own.byteCount)
        let new = try await newContents.content(at: position, byteCount: old.byteCount)
        let range = position..<position + new.byteCount
        if old.isZero && new.isZero { return CopyRun(.nothing, range) }
        if isSame(old.node, new.node) { return CopyRun(.nothing, range) }
        return try await compared(range, isOldZero: old.isZero)
    }

    /// Whether both chains get the bytes from one and the same image.
    private func isSame(_ old: BlockNode?, _ new: BlockNode?) -> Bool {
        guard let old, let new, old.formatName == new.formatName, old.filename != nil else { return false }
        return names.withLock { names in names.filename(of: old) == names.filename(of: new) }
    }

    /// Reads both, as far as one piece goes, and says whether its first unit differs, and how many behind it are like it in that.
    private func compared(_ range: Range<Int>, isOldZero: Bool) async throws(BlockError) -> CopyRun {
        let end = min(range.upperBound, (range.lowerBound + 1).roundedUp(to: max(Self.pieceSize, unit)))
        let count = end - range.lowerBound
        let buffer = IOBuffer(byteCount: 2 * count)
        defer { withExtendedLifetime(buffer) {} }
        let (old, new) = (buffer.vector(at: 0, byteCount: count), buffer.vector(at: count, byteCount: count))
        if isOldZero { old.zero() } else { try await overlay.read(old, at: GuestOffset(range.lowerBound)) }
        if let newBase { try await newBase.read(new, at: GuestOffset(range.lowerBound)) } else { new.zero() }
        var isDifferent = false
        var position = 0
        while position < count {
            let next = min(count, (range.lowerBound + position + 1).roundedUp(to: unit) - range.lowerBound)
            let (a, b) = (old.slice(at: position, byteCount: next - position), new.slice(at: position, byteCount: next - position))
            let differs = a.firstDifference(from: b) != nil
            if position == 0 { isDifferent = differs } else if differs != isDifferent { break }
            position = next
        }
        let kind: CopyRun.Kind = !isDifferent ? .nothing : isOldZero ? .zero : .data
        return CopyRun(kind, range.lowerBound..<range.lowerBound + position)
    }
}
