import JobCore
import QAPIRuntime
package import StorageSchema
import StrataBase

// The verbs of block jobs, and their list. An unknown job has an error class of its own here.

extension StorageService {
    private func blockJob(_ id: String) async throws(QMPError) -> Job {
        guard let job = await jobs.job(id), job.isBlockJob else { throw QMPError("Block job '\(id)' not found", class: .deviceNotActive) }
        return job
    }

    package func blockJobSetSpeed(_ arguments: BlockJobSetSpeedArguments) async throws {
        try await jobs.setSpeed(arguments.speed, of: try await blockJob(arguments.device))
    }

    package func blockJobCancel(_ arguments: BlockJobCancelArguments) async throws {
        try await jobs.cancel(try await blockJob(arguments.device), isForced: arguments.force ?? false)
    }

    package func blockJobPause(_ arguments: BlockJobPauseArguments) async throws { try await jobs.pause(try await blockJob(arguments.device)) }

    package func blockJobResume(_ arguments: BlockJobResumeArguments) async throws { try await jobs.resume(try await blockJob(arguments.device)) }

    package func blockJobComplete(_ arguments: BlockJobCompleteArguments) async throws { try await jobs.complete(try await blockJob(arguments.device)) }

    package func blockJobFinalize(_ arguments: BlockJobFinalizeArguments) async throws { try await jobs.finalize(try await blockJob(arguments.id)) }

    package func blockJobDismiss(_ arguments: BlockJobDismissArguments) async throws { try await jobs.dismiss(try await blockJob(arguments.id)) }

    package func blockJobChange(_ arguments: BlockJobChangeOptions) async throws {
        try await jobs.change(arguments, of: try await blockJob(arguments.id))
    }

    package func queryBlockJobs() async throws -> [BlockJobInfo] { await jobs.blockJobInfos }
}
