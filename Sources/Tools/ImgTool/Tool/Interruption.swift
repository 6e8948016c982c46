import IOCore
import Synchronization

/// What is said when a signal ends a command that has begun to write.
enum Interruption {
    /// From now on a signal leaves something behind that its user should know of.
    /// - Parameter consequence: as in `'o.qcow2' is incomplete`.
    static func leaves(_ consequence: String) {
        let name = StandardStreams.programName.withLock { $0 }
        ProcessSignals.setLastWords("\n\(name): interrupted: \(consequence)\n")
    }

    /// From now on a signal ends the process and that is all.
    static func leavesNothing() { ProcessSignals.setLastWords(nil) }
}
