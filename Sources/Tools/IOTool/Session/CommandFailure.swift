import StrataBase

/// Why a command of a script or of a person at the prompt did not do what it was asked. The tool goes on and exits with 1.
enum CommandFailure: Error {
    /// A sentence on standard output, where scripts look for it.
    case said(String)
    /// A sentence on standard error, as it stands.
    case complained(String)
    /// A sentence on standard error behind the tool's name.
    case reported(String)
    /// How the command is used, on standard output, after an optional complaint on standard error.
    case usage(String?)
    /// Everything there is to say has been said.
    case silent

    /// A request that failed: `read failed: Input/output error`.
    static func failed(_ operation: String, _ error: BlockError) -> CommandFailure {
        .said("\(operation) failed: \(BlockError.text(ofErrno: error.errno))")
    }
}
