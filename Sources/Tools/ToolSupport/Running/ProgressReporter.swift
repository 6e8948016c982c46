import IOCore
import Synchronization

/// The progress line of `-p`: rewritten in place, `    (12.34/100%)`.
package final class ProgressReporter: Sendable {
    private let isOn: Bool
    /// Hundredths of a percent that were printed last.
    private let printed = Mutex(-1)

    package init(isOn: Bool) {
        self.isOn = isOn
        if isOn { report(0, of: 1) }
    }

    /// Prints when the percentage has moved by at least one hundredth of the whole.
    package func report(_ done: Int, of total: Int) {
        guard isOn else { return }
        let hundredths = total <= 0 ? 10000 : Int(Double(done) / Double(total) * 10000)
        let isDue = printed.withLock { printed in
            guard printed < 0 || hundredths >= printed + 100 || (hundredths == 10000 && printed != 10000) else { return false }
            printed = hundredths
            return true
        }
        if isDue { print(hundredths) }
    }

    /// Ends the line.
    package func end(succeeded: Bool) {
        guard isOn else { return }
        if succeeded { print(10000) }
        StandardStreams.print("\n")
    }

    private func print(_ hundredths: Int) {
        let rest = hundredths % 100
        StandardStreams.print("    (\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)/100%)\r")
    }
}
