package import StorageSchema
package import StrataBase

/// What a job does. One object for each job.
///
/// `run` is a task on the job's I/O context; everything else is called on the graph's context. `complete`, `cancels`, `change` and `nudge` may be called
/// while `run` runs, so what they share with it is guarded. The others come after `run`, one after the other:
/// `prepare` and `commit` after success of every job of the transaction, or else `abort`; then `clean`, in any case.
package protocol JobDriver: AnyObject, Sendable {
    static var type: JobType { get }

    /// The work. Returns when it is done; throws when it has failed. It reaches a `pausePoint` often, which throws when the job is cancelled.
    func run(_ job: Job) async throws(BlockError)
    /// The last step that can fail.
    func prepare(_ job: Job) async throws(BlockError)
    /// The job has succeeded for good.
    func commit(_ job: Job) async
    /// The job has failed, or another one of its transaction, or it was cancelled.
    func abort(_ job: Job) async
    /// Lets go of everything: backends, filters, blockers. After it the job's event tells of its end.
    func clean(_ job: Job) async

    /// Somebody wants a ready job to end and to put into force what it is for. Returns at once; `run` ends soon.
    /// - Throws: why that is not possible now.
    func complete(_ job: Job) async throws(BlockError)
    /// Whether asking the job to end makes it fail. A mirror that is ready ends in order instead when nobody forces it.
    func cancels(_ job: Job, isForced: Bool) -> Bool
    /// Changes options while the job runs.
    func change(_ options: BlockJobChangeOptions, of job: Job) async throws(BlockError)
    /// Something has happened to the job: speed, cancellation, a pause or its end, completion. For drivers that wait for something of their own.
    func nudge(_ job: Job)
    /// What only this kind of job says in `query-block-jobs`.
    func branch(_ job: Job) -> BlockJobInfo.Branch
}

extension JobDriver {
    package func prepare(_ job: Job) async throws(BlockError) {}
    package func commit(_ job: Job) async {}
    package func abort(_ job: Job) async {}
    package func clean(_ job: Job) async {}
    package func complete(_ job: Job) async throws(BlockError) {
        throw BlockError(.unsupported, "The active block job '\(job.id)' cannot be completed")
    }
    package func cancels(_ job: Job, isForced: Bool) -> Bool { true }
    package func change(_ options: BlockJobChangeOptions, of job: Job) async throws(BlockError) {
        throw BlockError(.unsupported, "Job type does not support change")
    }
    package func nudge(_ job: Job) {}
    package func branch(_ job: Job) -> BlockJobInfo.Branch { BlockJobInfo.Branch(plain: Self.type) }
}

extension BlockJobInfo.Branch {
    /// For a type of jobs that has nothing of its own to say.
    init(plain type: JobType) {
        switch type {
        case .commit: self = .commit
        case .stream: self = .stream
        case .mirror: self = .mirror(BlockJobInfoMirror(activelySynced: false))
        case .backup: self = .backup
        case .create: self = .create
        case .amend: self = .amend
        case .snapshotLoad: self = .snapshotLoad
        case .snapshotSave: self = .snapshotSave
        case .snapshotDelete: self = .snapshotDelete
        }
    }
}
