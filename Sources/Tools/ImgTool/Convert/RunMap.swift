import IOCore
import StrataBase
import Synchronization

/// Remembers the run that was found last, for all workers: finding one can mean walking through much of a file's map, and a run is usually
/// much longer than a stripe. The sources do not change while they are read.
final class RunMap: Sendable {
    private let source: ConvertSource
    private let keepsBacking: Bool
    private let last = Mutex<ConvertSource.Run?>(nil)
    /// One worker looks, the others wait for what it finds.
    private let looking = AsyncMutex()

    init(_ source: ConvertSource, keepsBacking: Bool) {
        self.source = source
        self.keepsBacking = keepsBacking
    }

    /// The run that `position` lies in; it may begin before.
    func run(at position: Int) async throws(BlockError) -> ConvertSource.Run {
        if let known = known(at: position) { return known }
        return try await looking.withLock { () async throws(BlockError) -> ConvertSource.Run in
            if let known = known(at: position) { return known }
            let run = try await source.run(at: position, keepsBacking: keepsBacking)
            // A worker that lags behind must not make the others forget what lies ahead.
            last.withLock { if $0.map({ $0.range.upperBound < run.range.upperBound }) ?? true { $0 = run } }
            return run
        }
    }

    private func known(at position: Int) -> ConvertSource.Run? {
        last.withLock { run in
            guard let run, run.range.contains(position) else { return nil }
            return run
        }
    }
}
