import IOCore
import Synchronization

/// How far a command is: the line of `-p`, rewritten in place (`    (12.34/100%)`), or one JSON object on each line (`--progress=json`).
///
/// Without either, SIGUSR1 asks for one line on standard error, and a person at a terminal sees the line of `-p` on anything that takes longer than a
/// second.
package final class ProgressReporter: Sendable {
    package enum Style: Sendable, Hashable {
        /// `-q` goes before all.
        case silent
        /// Nobody has asked: only a person at a terminal who has to wait sees anything.
        case whenItTakesLong
        /// `-p`.
        case line
        /// `--progress=json`.
        case json
    }

    private struct State {
        /// Hundredths of a percent that were printed last.
        var printed = -1
        /// Whether a line stands there that the next output has to leave.
        var hasLine = false
        var hasEnded = false
    }

    private let style: Style
    private let isForWaitingPerson: Bool
    private let start = ContinuousClock.now
    private let state = Mutex(State())
    /// When a person begins to wonder.
    private static let patience = Duration.seconds(1)

    /// - Parameter begins: the work begins now, and not with `begin()`.
    package init(_ style: Style, begins: Bool = true) {
        self.style = style
        isForWaitingPerson = style == .whenItTakesLong && Terminal.isInteractive
        ProcessSignals.noteProgressQuestions()
        if begins { begin() }
    }

    /// Whoever has asked sees that nothing is done yet.
    package func begin() {
        if isAskedFor { report(0, of: 1) }
    }

    /// Does what comes before the work; the line ends with it when it fails, as qemu-img's does.
    package func beforehand<R>(_ body: () async throws(ToolFailure) -> R) async throws(ToolFailure) -> R {
        do throws(ToolFailure) { return try await body() } catch {
            end(succeeded: false)
            throw error
        }
    }

    private var isAskedFor: Bool { style == .line || style == .json }

    /// Prints when the percentage has moved by at least one hundredth of the whole. Any thread.
    package func report(_ done: Int, of total: Int) {
        let hundredths = Self.hundredths(done, of: total)
        if ProcessSignals.takeProgressQuestion() { StandardStreams.printError("    (\(Self.percent(hundredths))/100%)\n") }
        let isShown = isAskedFor || (isForWaitingPerson && ContinuousClock.now - start > Self.patience)
        guard isShown else { return }
        let isDue = state.withLock { state in
            guard state.printed < 0 || hundredths >= state.printed + 100 || (hundredths == 10000 && state.printed != 10000) else { return false }
            state.printed = hundredths
            state.hasLine = true
            return true
        }
        if isDue { print(hundredths) }
    }

    /// Ends the line, once.
    package func end(succeeded: Bool) {
        let (hasLine, printed, hadEnded) = state.withLock { state in
            defer { state.hasEnded = true }
            return (state.hasLine, state.printed, state.hasEnded)
        }
        guard isAskedFor || hasLine, !hadEnded else { return }
        // The line may be repeated, as qemu-img does, an object not.
        if succeeded, style != .json || printed != 10000 { print(10000) }
        if style != .json { StandardStreams.print("\n") }
    }

    private func print(_ hundredths: Int) {
        switch style {
        case .json: StandardStreams.print("{\"progress\": \(Self.percent(hundredths))}\n")
        case .line, .whenItTakesLong, .silent: StandardStreams.print("    (\(Self.percent(hundredths))/100%)\r")
        }
    }

    /// Between nothing and all, whatever a file takes more or less than was expected.
    package static func hundredths(_ done: Int, of total: Int) -> Int {
        total <= 0 ? 10000 : Int(min(max(Double(done) / Double(total), 0), 1) * 10000)
    }

    private static func percent(_ hundredths: Int) -> String {
        let rest = hundredths % 100
        return "\(hundredths / 100).\(rest < 10 ? "0" : "")\(rest)"
    }
}
