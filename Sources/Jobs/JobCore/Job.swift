package import IOCore
import QAPIRuntime
package import StorageSchema
import StrataBase
import Synchronization

/// Work that goes on while clients use the graph, and that users can watch, hold, slow down and end.
///
/// Its status changes only where its life is at the moment: in the job's own task while `run` runs (paused, ready), on the registry's context before and
/// after. So changes of one job never cross, and events tell of them in their order.
package final class Job: Sendable {
    package let id: String
    package let type: JobType
    package let isBlockJob: Bool
    package let finalizesAutomatically: Bool
    package let dismissesAutomatically: Bool
    /// Where `run` runs.
    package let context: IOContext
    package let transaction: JobTransaction
    package let progress = JobProgress()
    /// What it does; set before it starts.
    let work = Mutex<(any JobDriver)?>(nil)
    let control: AsyncCondition<Control>
    /// Whether a pause point has something to do: looked at without a lock.
    let isWanted = Atomic<Bool>(false)
    let send: @Sendable (any QAPIEvent) -> Void

    struct Control: Sendable {
        var state = JobState.undefined
        /// A user, or an error with a policy of stopping, holds the job.
        var isPaused = false
        var cancellation = Cancellation.none
        /// Counts what should end a sleep.
        var wakeUps = 0
        var rate: RateLimit
        var ioStatus = BlockDeviceIoStatus.ok
        /// In `run` and neither asleep nor paused.
        var isBusy = false
        /// `run` has been started and has not returned.
        var isRunning = false
    }

    enum Cancellation: Sendable, Hashable {
        case none
        /// The driver ends in order and succeeds.
        case soft
        case real
    }

    init(_ settings: JobSettings, context: IOContext, transaction: JobTransaction, send: @escaping @Sendable (any QAPIEvent) -> Void) {
        id = settings.id
        type = settings.type
        isBlockJob = settings.isBlockJob
        finalizesAutomatically = settings.finalizesAutomatically
        dismissesAutomatically = settings.dismissesAutomatically
        self.context = settings.context ?? context
        self.transaction = transaction
        self.send = send
        control = AsyncCondition(Control(rate: RateLimit(speed: settings.speed)))
    }

    /// How its backends are called, so that conflicts name it.
    package var holderName: String { "\(type.rawValue) job '\(id)'" }
    /// What operation blockers of its nodes say.
    package var blockReason: String { "block device is in use by block job: \(type.rawValue)" }

    package var driver: any JobDriver {
        guard let driver = work.withLock({ $0 }) else { preconditionFailure("a job is asked only after it was made") }
        return driver
    }

    package var state: JobState { control.withLock { $0.state } }
    package var status: JobStatus { state.status }
    /// Bytes per second; 0 is no limit.
    package var speed: Int { control.withLock { $0.rate.speed } }

    /// Somebody wants it to end without success.
    package var isCancelled: Bool { control.withLock { $0.cancellation == .real } }
    /// Somebody wants it to end, with or without success.
    package var isEndRequested: Bool { control.withLock { $0.cancellation != .none } }

    /// Suspends until the job is over: concluded, or gone already.
    package func waitUntilConcluded() async {
        await control.wait { [.concluded, .null].contains($0.state.status) ? () : nil }
    }

    // MARK: Changing

    /// Only where the job's life is (see above).
    func move(to state: JobState) {
        let old = control.update { control in
            let old = control.state
            precondition(JobStateMachine.successors(of: old.status).contains(state.status), "a job goes from \(old.status) to \(state.status) never")
            control.state = state
            return old
        }
        Trace.jobStateTransition(job: id, from: old.status.rawValue, to: state.status.rawValue)
        send(JobStatusChangeEvent(id: id, status: state.status))
    }

    /// Lets whatever the job sleeps for look again.
    package func wake() {
        control.update { $0.wakeUps += 1 }
        driver.nudge(self)
    }

    /// To be called by the driver from `run`: it has done what it is for, and goes on until it is told to complete.
    package func becomeReady() {
        move(to: .ready)
        guard isBlockJob else { return }
        send(BlockJobReadyEvent(type: type, device: id, len: progress.total, offset: progress.current, speed: speed))
    }

    package var isReady: Bool { [.ready, .standby].contains(status) }
}
