package import BlockGraph
package import IOCore
package import StrataBase

/// A stretch of a source that is the same throughout.
package struct CopyRun: Sendable, Hashable {
    package enum Kind: Sendable, Hashable {
        case data
        /// Reads as zeroes.
        case zero
        /// Not to be copied: the target gets it from elsewhere.
        case nothing
    }

    package var kind: Kind
    /// In bytes.
    package var range: Range<Int>

    package init(_ kind: Kind, _ range: Range<Int>) {
        self.kind = kind
        self.range = range
    }
}

/// What a copier reads: a disk that knows where it has nothing. Positions are in bytes and the same at the target.
package protocol CopySource: Sendable {
    /// Bytes.
    var length: Int { get }
    /// What lies at `position`, which is below `limit`, and how far it is the same. Nothing from `limit` on is asked for.
    /// - Returns: a run that `position` lies in.
    func run(at position: Int, limit: Int) async throws(BlockError) -> CopyRun
    /// Reads at once or not at all; then `read` is called.
    func tryRead(_ data: IOVector, at position: Int) -> Bool
    func read(_ data: IOVector, at position: Int) async throws(BlockError)
    /// Copies without the data coming through our memory, if that is possible; see `BlockChild.copyRange`.
    func copyRange(_ range: Range<Int>, to target: BlockChild, flags: RequestFlags) async throws(BlockError) -> Support
    /// The range is not needed any more.
    func discard(_ range: Range<Int>) async throws(BlockError)
}

extension CopySource {
    package func copyRange(_ range: Range<Int>, to target: BlockChild, flags: RequestFlags) async throws(BlockError) -> Support { .unsupported }
    package func discard(_ range: Range<Int>) async throws(BlockError) {}
}

/// A node with its backing chain as a source. Requests go through an edge, so the holder is inside the gates of its backends, or is a driver.
package struct ChainSource: CopySource {
    private let edge: BlockChild
    private let base: BlockNode?
    package let length: Int

    /// - Parameters:
    ///   - length: how much of the node is copied, in bytes.
    ///   - base: what this node of the chain, or one below it, decides is not copied; nil copies everything.
    package init(_ edge: BlockChild, length: Int, above base: BlockNode? = nil) {
        self.edge = edge
        self.length = length
        self.base = base
    }

    package func run(at position: Int, limit: Int) async throws(BlockError) -> CopyRun {
        let end = min(limit, length)
        let inside = min(end, edge.length)
        // The disk has become shorter meanwhile: beyond its end there are zeroes to a reader.
        guard position < inside else { return CopyRun(.zero, position..<end) }
        let range = GuestRange(GuestOffset(position), byteCount: inside - position)
        let (status, _, node) = try await edge.node.chainStatus(of: range, above: base)
        let kind: CopyRun.Kind = if let base, node === base { .nothing } else if status.flags.contains(.zero) { .zero } else { .data }
        return CopyRun(kind, position..<position + status.byteCount)
    }

    package func tryRead(_ data: IOVector, at position: Int) -> Bool { edge.tryRead(data, at: GuestOffset(position)) }

    package func read(_ data: IOVector, at position: Int) async throws(BlockError) { try await edge.read(data, at: GuestOffset(position)) }

    package func copyRange(_ range: Range<Int>, to target: BlockChild, flags: RequestFlags) async throws(BlockError) -> Support {
        let start = GuestOffset(range.lowerBound)
        return try await edge.copyRange(GuestRange(start, byteCount: range.count), to: target, at: start, flags: flags)
    }

    package func discard(_ range: Range<Int>) async throws(BlockError) {
        try await edge.discard(GuestRange(GuestOffset(range.lowerBound), byteCount: range.count))
    }
}
