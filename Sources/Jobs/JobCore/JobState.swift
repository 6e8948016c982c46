package import StorageSchema
package import StrataBase

/// Where a job is in its life, with what is known only there.
package enum JobState: Sendable, Hashable {
    case undefined, created, running, paused, ready, standby, waiting, pending
    /// Cleaning up after this failure; `.cancelled` when somebody wanted it to end.
    case aborting(BlockError)
    /// Over. Nil when it was a success.
    case concluded(BlockError?)
    case null

    package var status: JobStatus {
        switch self {
        case .undefined: .undefined
        case .created: .created
        case .running: .running
        case .paused: .paused
        case .ready: .ready
        case .standby: .standby
        case .waiting: .waiting
        case .pending: .pending
        case .aborting: .aborting
        case .concluded: .concluded
        case .null: .null
        }
    }

    package var failure: BlockError? {
        switch self {
        case .aborting(let failure): failure
        case .concluded(let failure): failure
        default: nil
        }
    }
}

/// What users may ask of a job.
package enum JobVerb: String, Sendable, CaseIterable {
    case cancel, pause, resume, complete, finalize, dismiss, change
    case setSpeed = "set-speed"
}

/// The table of a job's life: which status may follow which, and what may be asked of a job in each. Source: the description of JobStatus in QEMU's
/// QMP reference, and what qemu-storage-daemon 10.0 answers (it takes `complete` from a job in standby too).
package enum JobStateMachine {
    /// The statuses that may follow.
    package static func successors(of status: JobStatus) -> Set<JobStatus> {
        switch status {
        case .undefined: [.created]
        case .created: [.running, .aborting, .null]
        case .running: [.paused, .ready, .waiting, .aborting]
        case .paused: [.running]
        case .ready: [.standby, .waiting, .aborting]
        case .standby: [.ready]
        case .waiting: [.pending, .aborting]
        case .pending: [.concluded, .aborting]
        case .aborting: [.concluded]
        case .concluded: [.null]
        case .null: []
        }
    }

    /// The statuses in which a verb is accepted.
    package static func statuses(accepting verb: JobVerb) -> Set<JobStatus> {
        switch verb {
        case .cancel: [.created, .running, .paused, .ready, .standby, .waiting, .pending]
        case .pause, .resume, .setSpeed, .change: [.created, .running, .paused, .ready, .standby]
        case .complete: [.ready, .standby]
        case .finalize: [.pending]
        case .dismiss: [.concluded]
        }
    }

    package static func accepts(_ verb: JobVerb, in status: JobStatus) -> Bool { statuses(accepting: verb).contains(status) }
}
