/// What `--output` chooses.
package enum OutputFormat: String, Sendable, Hashable {
    case human
    case json
}

extension CommandContext {
    /// The value of `--output`, which defaults to text for people.
    package func outputFormat(_ value: String?) throws(ToolFailure) -> OutputFormat {
        guard let value else { return .human }
        guard let format = OutputFormat(rawValue: value) else {
            throw usageFailure("--output expects 'human' or 'json' not '\(value)'")
        }
        return format
    }
}
