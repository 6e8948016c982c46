package import IOCore
import Synchronization

extension ProgressReporter {
    /// Reports for a call that does not do so itself, by looking now and then how far it has come.
    /// - Parameter position: how much of how much is done; asked on the context's thread.
    package func watching<R, Failure: Error>(
        on context: IOContext, _ position: @escaping @Sendable () -> (done: Int, total: Int), _ call: () async throws(Failure) -> R
    ) async throws(Failure) -> R {
        let watch = Watch()
        defer { watch.isOver.store(true, ordering: .relaxed) }
        context.spawn {
            while true {
                await context.sleep(for: Self.interval)
                if watch.isOver.load(ordering: .relaxed) { return }
                let (done, total) = position()
                self.report(done, of: total)
            }
        }
        return try await call()
    }

    private final class Watch: Sendable { let isOver = Atomic(false) }
    private static let interval = Duration.milliseconds(100)
}
