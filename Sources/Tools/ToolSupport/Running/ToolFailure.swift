package import StrataBase

/// Why a tool gives up: what it prints, and the status it exits with.
package struct ToolFailure: Error, Hashable, Sendable {
    /// The first line, without the name in front.
    package var message: String
    /// Lines that follow as they are.
    package var advice: [String] = []
    /// The process's exit status.
    package var status: Int32 = 1
    /// What stands in front of the message instead of the tool's name.
    package var speaker: String?

    package init(_ message: String, advice: [String] = [], status: Int32 = 1) {
        self.message = message
        self.advice = advice
        self.status = status
    }

    /// An error from the block layer, with what was being done in front.
    package init(_ context: String? = nil, _ error: BlockError, status: Int32 = 1) {
        self.init(context.map { "\($0): \(error)" } ?? error.description, advice: error.hint.map { [$0] } ?? [], status: status)
    }

    /// No failure: all that was asked for has been printed, and nothing is left to do.
    package static let nothingLeftToDo = ToolFailure("", status: 0)

    /// All lines as they go to standard error.
    package func text(name: String) -> String {
        var text = "\(speaker ?? name): \(message)\n"
        for line in advice { text += line + "\n" }
        return text
    }
}
