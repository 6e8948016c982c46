import JobCore
package import StorageSchema
import StrataBase

// The verbs of all jobs, and their list. What they mean is in `JobRegistry`.

extension StorageService {
    private func job(_ id: String) async throws(BlockError) -> Job {
        guard let job = await jobs.job(id) else { throw BlockError(.notFound, "Job not found") }
        return job
    }

    package func jobPause(_ arguments: JobPauseArguments) async throws { try await jobs.pause(try await job(arguments.id)) }

    package func jobResume(_ arguments: JobResumeArguments) async throws { try await jobs.resume(try await job(arguments.id)) }

    package func jobCancel(_ arguments: JobCancelArguments) async throws { try await jobs.cancel(try await job(arguments.id), isForced: true) }

    package func jobComplete(_ arguments: JobCompleteArguments) async throws { try await jobs.complete(try await job(arguments.id)) }

    package func jobFinalize(_ arguments: JobFinalizeArguments) async throws { try await jobs.finalize(try await job(arguments.id)) }

    package func jobDismiss(_ arguments: JobDismissArguments) async throws { try await jobs.dismiss(try await job(arguments.id)) }

    package func queryJobs() async throws -> [JobInfo] { await jobs.infos }
}
