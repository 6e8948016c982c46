import BlockCopy
import BlockGraph
import CopyFilters
import DriverTesting
import IOCore
import StorageSchema
import StrataBase
import Synchronization

/// A graph with two simulated disks, a source and a target, on a thread of its own, and a second thread for workers.
final class CopyBench: Sendable {
    let contexts: [IOContext]
    let graph: BlockGraph
    let source: SimulatedDisk
    let target: SimulatedDisk

    private init(_ source: SimulatedDisk, _ target: SimulatedDisk) throws {
        contexts = [try IOContext.startThread(name: "copy-0"), try IOContext.startThread(name: "copy-1")]
        graph = BlockGraph(context: contexts[0], drivers: DriverRegistry([SimulatedDiskDriver.self, CopyBeforeWriteDriver.self, SnapshotAccessDriver.self]))
        self.source = source
        self.target = target
    }

    /// Runs `body` on the graph's thread with backends on both disks and takes everything down.
    static func run(
        _ source: SimulatedDisk, _ target: SimulatedDisk, _ body: @escaping @Sendable (CopyBench, _ from: BlockBackend, _ to: BlockBackend) async throws -> Void
    ) async throws {
        try await run(source, target) { bench in
            let from = try await bench.graph.makeBackend(named: "copier", on: "source", PermissionGrant(used: .consistentRead, shared: .all))
            let to = try await bench.graph.makeBackend(named: "copier", on: "target", PermissionGrant(used: [.consistentRead, .write], shared: .all))
            try await body(bench, from, to)
            await bench.graph.release(from)
            await bench.graph.release(to)
        }
    }

    /// The same without backends.
    static func run(_ source: SimulatedDisk, _ target: SimulatedDisk, _ body: @escaping @Sendable (CopyBench) async throws -> Void) async throws {
        let bench = try CopyBench(source, target)
        let result: Result<Void, any Error> = await withCheckedContinuation { continuation in
            bench.contexts[0].spawn {
                do {
                    try await bench.graph.add(source.options(named: "source"))
                    try await bench.graph.add(target.options(named: "target"))
                    try await body(bench)
                    try await bench.graph.closeAll()
                    continuation.resume(returning: .success(()))
                } catch { continuation.resume(returning: .failure(error)) }
            }
        }
        for context in bench.contexts {
            context.stop()
            context.join()
        }
        source.retire()
        target.retire()
        try result.get()
    }

    /// Runs `body` as a task of one of the threads, as an export's requests do.
    func onThread<R: Sendable>(_ index: Int, _ body: @escaping @Sendable () async throws -> R) async throws -> R {
        let result: Result<R, any Error> = await withCheckedContinuation { continuation in
            contexts[index % contexts.count].spawn {
                do { continuation.resume(returning: .success(try await body())) } catch { continuation.resume(returning: .failure(error)) }
            }
        }
        return try result.get()
    }
}

/// Counts, and decides as it was told.
final class Watch: CopyDelegate {
    struct State: Sendable {
        var finished = 0
        var moved = 0
        var failures: [CopyFailure] = []
        var admitted = 0
    }

    let state = Mutex(State())
    private let action: CopyFailureAction
    private let mayGoOn: @Sendable (State) -> Bool

    init(_ action: CopyFailureAction = .stop, while mayGoOn: @escaping @Sendable (State) -> Bool = { _ in true }) {
        self.action = action
        self.mayGoOn = mayGoOn
    }

    func admit() async -> Bool {
        state.withLock { state in
            state.admitted += 1
            return mayGoOn(state)
        }
    }

    func copied(_ tally: CopyTally) async {
        state.withLock { state in
            state.finished += tally.finished
            state.moved += tally.moved
        }
    }

    func failed(_ failure: CopyFailure) async -> CopyFailureAction {
        state.withLock { $0.failures.append(failure) }
        return action
    }
}

/// Stripes of data and of zeroes; and what they are at units of 512 bytes.
func stripedContents(_ byteCount: Int, seed: UInt64) -> [UInt8] {
    var random = SeededNumbers(seed: seed)
    var bytes = [UInt8](repeating: 0, count: byteCount)
    var position = 0
    var isData = Bool.random(using: &random)
    while position < byteCount {
        let end = min(byteCount, position + 512 * Int.random(in: 1...40, using: &random))
        if isData { for index in position..<end { bytes[index] = UInt8(truncatingIfNeeded: index / 7 % 255 + 1) } }
        isData.toggle()
        position = end
    }
    return bytes
}
