package import BlockGraph
package import IOCore
package import StrataBase
import Synchronization

/// Copies a source into a target: workers on one or more I/O contexts take pieces of the work, find out what is there, and write what the target
/// does not have already.
///
/// Source and target are edges. `gates` are the backends through which their holder uses them: a worker enters all of these at once before it takes
/// a piece, and leaves them when the piece is done, so that it never stands at a closed gate with a piece that others wait for.
package final class BlockCopier: Sendable {
    let source: any CopySource
    let target: BlockChild
    let settings: CopySettings
    /// Bytes that are written together: everything that goes to the target begins at multiples of it.
    let unit: Int
    let dataFlags: RequestFlags
    /// What copies by the kernel carry.
    let rangeFlags: RequestFlags
    let scan: ZeroScan
    let runs: RunMap?
    let work: any CopyWork
    let order: WriteOrder?
    /// Whether the kernel is asked to copy; not any more once it has refused.
    let copiesRanges: Atomic<Bool>
    /// Memory of workers that have no piece. Whoever takes one takes what was given back last: it is still in the processor's cache.
    private let spareBuffers = Mutex<[IOBuffer]>([])
    /// Bytes that were written, for `startsWriteback`.
    private let written = Atomic<Int>(0)
    private let gates: [BlockBackend]
    private let delegate: any CopyDelegate
    private let failure = Mutex<BlockError?>(nil)

    /// - Parameter clusterSize: the target's, in bytes, if it has clusters: less is never left out of one.
    package init(
        _ source: any CopySource, to target: BlockChild, clusterSize: Int? = nil, work: any CopyWork, _ settings: CopySettings,
        gates: [BlockBackend] = [], delegate: any CopyDelegate = Unwatched()
    ) {
        self.source = source
        self.target = target
        self.settings = settings
        self.work = work
        self.gates = gates
        self.delegate = delegate
        unit = settings.compressionUnit ?? settings.wholeUnit
        copiesRanges = Atomic(settings.usesCopyRange && settings.compressionUnit == nil)
        dataFlags = settings.compressionUnit == nil ? settings.writeFlags : settings.writeFlags.union(.compressed)
        rangeFlags = settings.sharesOnly ? settings.writeFlags.union(.sharedOnly) : settings.writeFlags
        // Leaving out part of a cluster saves nothing: the target would have to fill it up.
        scan = ZeroScan(unit: settings.sparseUnit == 0 ? 0 : settings.compressionUnit ?? max(settings.sparseUnit, clusterSize ?? 0))
        runs = settings.sourceIsStable ? RunMap(source) : nil
        order = settings.isOrdered ? WriteOrder() : nil
    }

    /// Copies until there is no work left, or the delegate ends it.
    /// - Parameter contexts: where the workers run; the work is shared out evenly.
    /// - Throws: the first error for which the delegate has said to stop. The target is then incomplete.
    package func run(on contexts: [IOContext]) async throws(BlockError) {
        failure.withLock { $0 = nil }
        work.restart()
        await withTaskGroup(of: Void.self) { group in
            for index in 0..<max(settings.workers, contexts.count) {
                group.addTask(executorPreference: contexts[index % contexts.count]) { await self.labour() }
            }
        }
        spareBuffers.withLock { $0 = [] }
        if let error = failure.withLock({ $0 }) { throw error }
    }

    private func labour() async {
        while await delegate.admit() {
            do throws(BlockError) { try await BlockBackend.enter(gates) } catch { return end(with: error) }
            guard let piece = work.next() else { return BlockBackend.leave(gates) }
            do throws(CopyFailure) {
                let tally = try await copy(piece)
                if settings.startsWriteback { startWriteback(tally.moved) }
                // Space that does not come back costs space and nothing else.
                if settings.discardsSource { do throws(BlockError) { try await source.discard(piece.range) } catch {} }
                work.finish(piece, succeeded: true)
                order?.finish(piece.number)
                BlockBackend.leave(gates)
                await delegate.copied(tally)
            } catch {
                work.finish(piece, succeeded: false)
                BlockBackend.leave(gates)
                if await delegate.failed(error) == .stop { return end(with: error.error) }
            }
            // A worker whose requests are all answered at once would keep its thread for itself, and with it tasks that others wait for.
            await Task.yield()
        }
    }

    private func copy(_ piece: CopyPiece) async throws(CopyFailure) -> CopyTally {
        // Made when data is met and there is none to spare.
        var buffer = spareBuffers.withLock { $0.popLast() }
        defer { if let buffer { spareBuffers.withLock { $0.append(buffer) } } }
        return try await copy(piece, &buffer)
    }

    /// How much is written between two requests to begin writeback, in bytes: enough for the disk to have long requests.
    private static let writebackStep = 16 << 20

    private func startWriteback(_ byteCount: Int) {
        let (before, after) = written.add(byteCount, ordering: .relaxed)
        if before / Self.writebackStep != after / Self.writebackStep { target.startWriteback() }
    }

    private func end(with error: BlockError) {
        failure.withLock { if $0 == nil { $0 = error } }
        work.stop()
        order?.abandon()
    }
}

/// For copiers whose pieces somebody copies himself.
package final class Unwatched: CopyDelegate {
    package init() {}
    package func admit() async -> Bool { true }
    package func copied(_ tally: CopyTally) async {}
    package func failed(_ failure: CopyFailure) async -> CopyFailureAction { .stop }
}
