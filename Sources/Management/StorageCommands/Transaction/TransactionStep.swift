import BlockGraph
import IOCore
import StrataBase

/// One action of a `transaction`. All are prepared in order; then all are committed in order, or those that were prepared are aborted in reverse.
///
/// A command that can also be an action is done as a transaction of one step (`StorageService.run`), so that both are the same code.
protocol TransactionStep: AnyObject {
    /// Nodes that no request may reach from before the first step is prepared until after the last is committed or aborted. Asked before `prepare`.
    var nodesToDrain: Set<String> { get }

    /// Nodes whose images keep bitmaps that the step changes.
    func nodesWithStoredBitmaps(_ service: StorageService) async -> Set<String>

    /// Does it, so that it can be undone. What throws has left nothing behind. Requests of the drained nodes wait: the step makes none that would join them.
    func prepare() async throws(BlockError)
    /// Lets it stand. Cannot fail. A job starts here.
    func commit() async
    /// Undoes what `prepare` has done.
    func abort() async
}

extension TransactionStep {
    func nodesWithStoredBitmaps(_ service: StorageService) async -> Set<String> { [] }
    func commit() async {}
    func abort() async {}
}

extension StorageService {
    /// Takes all steps or none.
    func run(_ steps: [any TransactionStep]) async throws(BlockError) {
        await changes.lock()
        defer { changes.unlock() }
        try await runLocked(steps)
    }

    private func runLocked(_ steps: [any TransactionStep]) async throws(BlockError) {
        var stored: Set<String> = []
        for step in steps { stored.formUnion(await step.nodesWithStoredBitmaps(self)) }
        let drained = steps.reduce(into: Set<String>()) { $0.formUnion($1.nodesToDrain) }
        let change = try await graph.beginBitmapChange(of: stored)
        let drain = drained.isEmpty ? nil : await graph.beginDrain(of: drained)
        let outcome: Result<Void, BlockError>
        do throws(BlockError) { outcome = .success(try await take(steps)) } catch { outcome = .failure(error) }
        if let drain { await graph.end(drain) }
        await graph.end(change)
        try outcome.get()
    }

    private func take(_ steps: [any TransactionStep]) async throws(BlockError) {
        var prepared: [any TransactionStep] = []
        do throws(BlockError) {
            for step in steps {
                try await step.prepare()
                prepared.append(step)
            }
        } catch {
            for step in prepared.reversed() { await step.abort() }
            throw error
        }
        for step in prepared { await step.commit() }
    }
}
