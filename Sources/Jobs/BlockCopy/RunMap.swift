import IOCore
import StrataBase
import Synchronization

/// Remembers the run that was found last, for all workers: finding one can mean walking through much of a file's map, and a run is usually
/// much longer than a piece. For sources whose runs do not change while they are read.
final class RunMap: Sendable {
    private let source: any CopySource
    private let last = Mutex<CopyRun?>(nil)
    /// One worker looks, the others wait for what it finds.
    private let looking = AsyncMutex()

    init(_ source: any CopySource) { self.source = source }

    /// The run that `position` lies in; it may begin before.
    func run(at position: Int) async throws(BlockError) -> CopyRun {
        if let known = known(at: position) { return known }
        return try await looking.withLock { () async throws(BlockError) -> CopyRun in
            if let known = known(at: position) { return known }
            let run = try await source.run(at: position, limit: source.length)
            // A worker that lags behind must not make the others forget what lies ahead.
            last.withLock { if $0.map({ $0.range.upperBound < run.range.upperBound }) ?? true { $0 = run } }
            return run
        }
    }

    private func known(at position: Int) -> CopyRun? {
        last.withLock { run in
            guard let run, run.range.contains(position) else { return nil }
            return run
        }
    }
}
