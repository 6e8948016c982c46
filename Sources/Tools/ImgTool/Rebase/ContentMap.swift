import BlockGraph
import IOCore
import StrataBase
import Synchronization

/// What a chain that nobody writes to has where, as several workers ask for it piece by piece. The stretch that was found last is remembered: finding one can
/// mean walking through much of a file's map, and a stretch is usually much longer than a piece.
final class ContentMap: Sendable {
    struct Content: Sendable {
        /// How far it goes on, counted from where was asked.
        var byteCount: Int
        var isZero: Bool
        /// Decides what is there; nil beyond the end.
        var node: BlockNode?
    }

    private struct Stretch {
        var range: Range<Int>
        var isZero: Bool
        var node: BlockNode?
    }

    /// Nil: everything reads as zero.
    private let node: BlockNode?
    private let last = Mutex<Stretch?>(nil)
    /// One worker looks, the others wait for what it finds.
    private let looking = AsyncMutex()

    init(_ node: BlockNode?) { self.node = node }

    /// What is at `position`. Beyond the end of the chain there are zeroes.
    /// - Parameter byteCount: how far it matters.
    func content(at position: Int, byteCount: Int) async throws(BlockError) -> Content {
        guard let node, position < node.length else { return Content(byteCount: byteCount, isZero: true, node: nil) }
        if let known = known(at: position, byteCount) { return known }
        return try await looking.withLock { () async throws(BlockError) -> Content in
            if let known = known(at: position, byteCount) { return known }
            let (status, _, decider) = try await node.chainStatus(of: GuestRange(GuestOffset(position), byteCount: node.length - position))
            let found = Stretch(range: position..<position + status.byteCount, isZero: status.flags.contains(.zero), node: decider)
            // A worker that lags behind must not make the others forget what lies ahead.
            last.withLock { if $0.map({ $0.range.upperBound < found.range.upperBound }) ?? true { $0 = found } }
            return Content(byteCount: min(status.byteCount, byteCount), isZero: found.isZero, node: decider)
        }
    }

    private func known(at position: Int, _ byteCount: Int) -> Content? {
        last.withLock { last in
            guard let last, last.range.contains(position) else { return nil }
            return Content(byteCount: min(last.range.upperBound - position, byteCount), isZero: last.isZero, node: last.node)
        }
    }
}
