import BlockCopy
import ToolSupport

/// Shows how far a copy is, and slows it down if that is wanted. The first error ends it.
final class CopyWatch: CopyDelegate {
    private let work: StripeCursor
    private let limiter: RateLimiter?
    private let progress: ProgressReporter

    /// - Parameter rate: bytes a second at most; nil for as fast as possible.
    init(_ work: StripeCursor, _ rate: Int?, _ progress: ProgressReporter) {
        self.work = work
        limiter = rate.map(RateLimiter.init)
        self.progress = progress
    }

    func admit() async -> Bool { true }

    func copied(_ tally: CopyTally) async {
        progress.report(work.done, of: work.length)
        if let limiter { await limiter.wait(after: tally.moved) }
    }

    func failed(_ failure: CopyFailure) async -> CopyFailureAction { .stop }
}
