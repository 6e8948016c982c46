import BlockCopy
import BlockGraph
import IOCore
import StrataBase
import Synchronization

/// What an image shows of its backing files, down to one of them. Reading through the copy-on-read filter over the image copies, so this source copies by
/// itself whatever it is asked for; nothing is written by anybody else.
final class StreamSource: CopySource {
    private let filter: BlockChild
    private let top: BlockNode
    /// The last image whose data is copied; nil for all.
    private let bottom: BlockNode?
    private let jobID: String
    private let givenUp = Mutex<[Range<Int>]>([])

    /// Bytes that are read at once: what has been read is still in the processor's cache when it is written.
    private static let readSize = 256 << 10

    init(_ filter: BlockChild, top: BlockNode, bottom: BlockNode?, jobID: String) {
        self.filter = filter
        self.top = top
        self.bottom = bottom
        self.jobID = jobID
    }

    var length: Int { top.length }

    /// The range cannot be copied, and is not asked for again.
    func giveUp(_ range: Range<Int>) { givenUp.withLock { $0.append(range) } }

    func run(at position: Int, limit: Int) async throws(BlockError) -> CopyRun {
        let (lost, nextLoss) = givenUp.withLock { ranges in
            (ranges.first { $0.contains(position) }, ranges.lazy.map(\.lowerBound).filter { $0 > position }.min())
        }
        if let lost { return CopyRun(.nothing, position..<min(lost.upperBound, limit)) }
        let end = min(limit, nextLoss ?? limit)
        let base = bottom?.below
        let (status, _, node) = try await top.chainStatus(of: GuestRange(GuestOffset(position), byteCount: end - position), above: base, precise: false)
        let isThere = node === top && status.flags.contains(.allocated)
        // Where no image reaches there are zeroes. The new backing file may show something else there.
        let isWanted = !isThere && node !== base && (status.flags.contains(.allocated) || base != nil)
        return CopyRun(isWanted ? .data : .nothing, position..<position + status.byteCount)
    }

    func copyRange(_ range: Range<Int>, to target: BlockChild, flags: RequestFlags) async throws(BlockError) -> Support {
        Trace.streamCopyBegin(job: jobID, offset: range.lowerBound, bytes: range.count)
        defer { Trace.streamCopyEnd(job: jobID, offset: range.lowerBound) }
        let buffer = IOBuffer(byteCount: min(range.count, Self.readSize))
        defer { withExtendedLifetime(buffer) {} }
        var (position, attempts) = (range.lowerBound, 0)
        while position < range.upperBound {
            let run = try await run(at: position, limit: min(range.upperBound, position + buffer.byteCount))
            if run.kind == .nothing {
                (position, attempts) = (run.range.upperBound, 0)
                continue
            }
            // Looked at again: what somebody else was just writing was left to him.
            if attempts == 100 { throw BlockError(.io, "offset \(position) of node '\(top.name)' does not become its own") }
            attempts += 1
            try await filter.read(buffer.vector(at: 0, byteCount: run.range.count), at: GuestOffset(position), flags: .prefetch)
        }
        return .done
    }

    // Never asked for: copying by itself is always possible.
    func tryRead(_ data: IOVector, at position: Int) -> Bool { false }
    func read(_ data: IOVector, at position: Int) async throws(BlockError) { try await filter.read(data, at: GuestOffset(position)) }
}
