import BlockGraph
import JobCore
package import StorageSchema
import StrataBase

extension StorageService {
    /// Starts to copy a disk as it is now into an image, which is made or opened for this.
    package func driveBackup(_ arguments: DriveBackup) async throws {
        try checkNotShuttingDown()
        try await run([DriveBackupStep(self, arguments, in: JobTransaction())])
    }
}

/// Makes or opens the image of a backup, and the backup's job; undone by taking the job back and removing a file that was made for it.
final class DriveBackupStep: TransactionStep {
    private let service: StorageService
    private let arguments: DriveBackup
    private let transaction: JobTransaction
    private var made: (target: DriveTarget, backup: BackupStep)?

    init(_ service: StorageService, _ arguments: DriveBackup, in transaction: JobTransaction) {
        self.service = service
        self.arguments = arguments
        self.transaction = transaction
    }

    var nodesToDrain: Set<String> { [arguments.device] }

    func prepare() async throws(BlockError) {
        let source = try await service.nodeForJob(arguments.device)
        let request = DriveTarget.Request(
            command: "drive-backup", name: arguments.target, format: arguments.format, mode: arguments.mode, sync: arguments.sync, replacesBacking: true,
            detectsZeroes: true)
        let target = try await DriveTarget.open(request, for: source, in: service.graph)
        let backup = BackupStep(
            service,
            BlockdevBackup(
                jobId: arguments.jobId, device: arguments.device, sync: arguments.sync, speed: arguments.speed, bitmap: arguments.bitmap,
                bitmapMode: arguments.bitmapMode, compress: arguments.compress, onSourceError: arguments.onSourceError,
                onTargetError: arguments.onTargetError, autoFinalize: arguments.autoFinalize, autoDismiss: arguments.autoDismiss,
                filterNodeName: arguments.filterNodeName, discardSource: arguments.discardSource, xPerf: arguments.xPerf, target: target.node.name),
            in: transaction)
        do throws(BlockError) { try await backup.prepare() } catch {
            await target.discard(in: service.graph)
            throw error
        }
        made = (target, backup)
    }

    func commit() async {
        guard let made else { return }
        await made.target.leave(in: service.graph)
        await made.backup.commit()
    }

    func abort() async {
        guard let made else { return }
        await made.backup.abort()
        await made.target.discard(in: service.graph)
    }
}
