import IOCore
package import StorageSchema
package import StrataBase
import Synchronization

extension Job {
    /// A request has failed: tells users, and says what the policy wants. `.ignore`: go on. `.stop`: the job is held; pass a pause point and try the
    /// request again. `.report`: throw `reported(error)`.
    package func action(for error: BlockError, on operation: IoOperationType, policy: BlockdevOnError) -> BlockErrorAction {
        let action: BlockErrorAction =
            switch policy {
            case .report: .report
            case .ignore: .ignore
            case .stop: .stop
            case .enospc, .auto: error.code == .noSpace ? .stop : .report
            }
        Trace.jobRequestFailed(job: id, operation: operation.rawValue, action: action.rawValue, reason: error.description)
        if isBlockJob { send(BlockJobErrorEvent(device: id, operation: operation, action: action)) }
        if action == .stop {
            control.update { control in
                control.isPaused = true
                if control.ioStatus == .ok { control.ioStatus = error.code == .noSpace ? .nospace : .failed }
            }
            isWanted.store(true, ordering: .releasing)
        }
        return action
    }

    /// The failure of a job whose request has failed. On the wire it has the system's words, as QEMU's has; the trace has all of them.
    package func reported(_ error: BlockError) -> BlockError { BlockError(error.code, BlockError.text(ofErrno: error.errno)) }
}
