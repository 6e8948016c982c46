import JobCore
package import StorageSchema
import StrataBase

extension StorageService {
    /// Does several things at one moment, or none of them.
    package func transaction(_ arguments: TransactionArguments) async throws {
        try checkNotShuttingDown()
        let mode = arguments.properties?.completionMode ?? .individual
        var steps: [any TransactionStep] = []
        let shared = mode == .grouped ? JobTransaction() : nil
        for action in arguments.actions { steps.append(try step(for: action, shared)) }
        try await run(steps)
    }

    /// The compiler asks for a case here when the schema gains an action.
    /// - Parameter group: what the jobs of a grouped transaction belong to; nil when each has an end of its own.
    private func step(for action: TransactionAction, _ group: JobTransaction?) throws(BlockError) -> any TransactionStep {
        switch action.branch {
        case .blockdevBackup(let action): return BackupStep(self, action.data, in: group ?? JobTransaction())
        case .driveBackup(let action): return DriveBackupStep(self, action.data, in: group ?? JobTransaction())
        // Only jobs have an end that could be common.
        case _ where group != nil:
            throw BlockError(.invalidArgument, "Action '\(action.type.rawValue)' does not support transaction property completion-mode = grouped")
        case .abort: return AbortStep()
        case .blockDirtyBitmapAdd(let action): return AddBitmapStep(graph, action.data)
        case .blockDirtyBitmapRemove(let action): return RemoveBitmapStep(graph, action.data)
        case .blockDirtyBitmapClear(let action): return ClearBitmapStep(graph, action.data)
        case .blockDirtyBitmapEnable(let action): return RecordingStep(graph, action.data, isRecording: true)
        case .blockDirtyBitmapDisable(let action): return RecordingStep(graph, action.data, isRecording: false)
        case .blockDirtyBitmapMerge(let action): return MergeBitmapsStep(graph, action.data)
        case .blockdevSnapshot(let action): return SnapshotStep(self, node: action.data.node, overlay: action.data.overlay)
        case .blockdevSnapshotInternalSync(let action): return InternalSnapshotStep(self, action.data)
        case .blockdevSnapshotSync(let action): return SnapshotSyncStep(self, action.data)
        }
    }
}

/// Fails, so that tests can see everything undone.
private final class AbortStep: TransactionStep {
    let nodesToDrain: Set<String> = []
    func prepare() async throws(BlockError) { throw BlockError(.cancelled, "Transaction aborted using Abort action") }
}
