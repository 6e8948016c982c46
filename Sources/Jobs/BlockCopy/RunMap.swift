import IOCore
import StrataBase

/// Remembers the runs that were found last, for all workers: finding one can mean walking through much of a file's map, and a run is usually
/// much longer than a piece. For sources whose runs do not change while they are read.
///
/// One worker looks at a time, for all. Whoever comes into the last known run first looks what lies behind it, so that the others need not stand
/// still at its end.
final class RunMap: Sendable {
    private struct Known: Sendable {
        /// The run that was found last, and the one before it: ascending.
        var last: CopyRun?
        var before: CopyRun?
        var isLooking = false
        /// Where looking ahead failed. The worker whose turn it is gets the error.
        var unknown = -1

        /// What the worker at `position` is to do; nil as long as it has to wait for another.
        mutating func advice(at position: Int, length: Int) -> Advice? {
            if let last, last.range.contains(position) {
                if isLooking || last.range.upperBound >= length || last.range.upperBound == unknown { return .take(last) }
                isLooking = true
                return .takeAndLook(last)
            }
            if let before, before.range.contains(position) { return .take(before) }
            if isLooking { return nil }
            isLooking = true
            return .look
        }

        /// Ends looking.
        mutating func add(_ run: CopyRun) {
            isLooking = false
            // A worker that lags behind must not make the others forget what lies ahead.
            if let last, last.range.upperBound >= run.range.upperBound { return }
            before = last
            last = run
        }
    }

    private enum Advice: Sendable {
        case take(CopyRun)
        /// Nobody else looks until the worker has: first behind the run, which it then takes.
        case takeAndLook(CopyRun)
        /// Nobody else looks until the worker has.
        case look
    }

    private let source: any CopySource
    private let known = AsyncCondition(Known())

    init(_ source: any CopySource) { self.source = source }

    /// The run that `position` lies in; it may begin before.
    func run(at position: Int) async throws(BlockError) -> CopyRun {
        let length = source.length
        switch await known.wait(until: { $0.advice(at: position, length: length) }) {
        case .take(let run): return run
        case .takeAndLook(let run):
            let next = run.range.upperBound
            do throws(BlockError) { _ = try await look(at: next) } catch { known.withLock { $0.unknown = next } }
            return run
        case .look: return try await look(at: position)
        }
    }

    private func look(at position: Int) async throws(BlockError) -> CopyRun {
        do throws(BlockError) {
            let run = try await source.run(at: position, limit: source.length)
            known.update { $0.add(run) }
            return run
        } catch {
            known.update { $0.isLooking = false }
            throw error
        }
    }
}
