import IOCore
import Synchronization

/// How far a command is: the line of `-p`, rewritten in place (`    (12.34/100%)`), or one JSON object on each line (`--progress=json`).
///
/// Without either, SIGUSR1 asks for one line on standard error, and a person at a terminal sees the line of `-p` on anything that takes longer than a
/// second.
package final class ProgressReporter: Sendable {
    package enum Style: Sendable, Hashable {
        case none
        case line
        case json

        /// - Parameters:
        ///   - isWanted: whether `-p` or `--progress` is given.
        ///   - value: what follows `--progress=`.
        ///   - isQuiet: `-q` goes before all.
        package init(isWanted: Bool, value: String?, isQuiet: Bool) throws(ToolFailure) {
            if let value, value != "json", value != "line" { throw ToolFailure("--progress expects 'line' or 'json' not '\(value)'") }
            self = isQuiet || !isWanted ? .none : value == "json" ? .json : .line
        }
    }

    private struct State {
        /// Hundredths of a percent that were printed last.
        var printed = -1
        /// Whether a line stands there that the next output has to leave.
        var hasLine = false
    }

    private let style: Style
    /// Without `-p`: whether there is somebody who would like to see that it takes long.
    private let mayWatch: Bool
    private let start = ContinuousClock.now
    private let state = Mutex(State())
    /// When a person begins to wonder.
    private static let patience = Duration.seconds(1)

    package init(_ style: Style, isQuiet: Bool = false) {
        self.style = style
        mayWatch = style == .none && !isQuiet && Terminal.isInteractive
        ProcessSignals.noteProgressQuestions()
        if style != .none { report(0, of: 1) }
    }

    /// Prints when the percentage has moved by at least one hundredth of the whole. Any thread.
    package func report(_ done: Int, of total: Int) {
        let hundredths = total <= 0 ? 10000 : Int(Double(done) / Double(total) * 10000)
        if ProcessSignals.takeProgressQuestion() { StandardStreams.printError("    (\(Self.percent(hundredths))/100%)\n") }
        let isShown = style != .none || (mayWatch && ContinuousClock.now - start > Self.patience)
        guard isShown else { return }
        let isDue = state.withLock { state in
            guard state.printed < 0 || hundredths >= state.printed + 100 || (hundredths == 10000 && state.printed != 10000) else { return false }
            state.printed = hundredths
            state.hasLine = true
            return true
        }
        if isDue { print(hundredths) }
    }

    /// Ends the line.
    package func end(succeeded: Bool) {
        let (hasLine, printed) = state.withLock { ($0.hasLine, $0.printed) }
        guard style != .none || hasLine else { return }
        // The line may be repeated, as qemu-img does, an object not.
        if succeeded, style != .json || printed != 10000 { print(10000) }
        if style != .json { StandardStreams.print("\n") }
    }

    private func print(_ hundredths: Int) {
        switch style {
        case .json: StandardStreams.print("{\"progress\": \(Self.percent(hundredths))}\n")
        case .line, .none: StandardStreams.print("    (\(Self.percent(hundredths))/100%)\r")
        }
    }

    private static func percent(_ hundredths: Int) -> String {
        let rest = hundredths % 100
        return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)"
    }
}
