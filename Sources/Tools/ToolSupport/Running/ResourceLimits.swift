import IOCore
import StrataBase

/// The keys of a command that may be used on images from strangers.
package protocol LimitsOptionKey: OptionKey {
    static var limitsMemory: Self { get }
    static var limitsTime: Self { get }
}

extension OptionDeclaration where Key: LimitsOptionKey {
    package static var limitsMemory: OptionDeclaration {
        OptionDeclaration(.limitsMemory, nil, "limits-memory", value: "SIZE", help: "give up rather than use more memory than this").ownWord
    }
    package static var limitsTime: OptionDeclaration {
        OptionDeclaration(.limitsTime, nil, "limits-time", value: "SECONDS", help: "give up when it takes longer than this").ownWord
    }
}

/// How much memory and time a command may take (`--limits-memory`, `--limits-time`).
package struct ResourceLimits: Sendable, Hashable {
    /// Bytes; nil for no limit.
    package var memory: Int?
    /// Nil for no limit.
    package var milliseconds: Int?

    package init() {}

    package init<Key: LimitsOptionKey>(_ arguments: ParsedArguments<Key>) throws(ToolFailure) {
        if let text = arguments.last(.limitsMemory) { memory = try NumberArgument.parse(text, "memory limit", in: Self.smallestMemory...Int.max) }
        if let text = arguments.last(.limitsTime) {
            guard let seconds = Double(text), seconds > 0, seconds <= Self.longestTime else {
                throw ToolFailure("Invalid time limit specified: '\(text)'. Must be a number of seconds up to \(Int(Self.longestTime)).")
            }
            milliseconds = max(1, Int(seconds * 1000))
        }
    }

    /// Below this not even an error could be reported, in bytes.
    private static let smallestMemory = 16 << 20
    /// Seconds.
    private static let longestTime = 1e9

    /// Goes on as two processes if there are limits. Call before any thread is started.
    /// - Returns: nil in the process that is to do the work; in the other one, the exit status.
    /// - Throws: a failure that names the limit that was not enough.
    package func enter() throws(ToolFailure) -> Int32? {
        if memory == nil, milliseconds == nil { return nil }
        // The waiting process hands questions on.
        ProcessSignals.noteProgressQuestions()
        let ending: LimitedProcess.Ending?
        do throws(BlockError) { ending = try LimitedProcess.fork(memory: memory, milliseconds: milliseconds) } catch { throw ToolFailure(nil, error) }
        switch ending {
        case nil: return nil
        case .exited(let status)?: return status
        case .late?: throw ToolFailure("Gave up: it took longer than \(Double(milliseconds ?? 0) / 1000) seconds (--limits-time)")
        case .signalled(let signal)?:
            if let memory, Self.failedAllocations.contains(signal) { throw ToolFailure("Gave up: it needed more memory than \(memory) bytes (--limits-memory)") }
            ProcessEnd.raise(signal)
            return 1
        }
    }

    /// How a process ends that gets no memory: SIGILL, SIGTRAP, SIGABRT, SIGSEGV.
    private static let failedAllocations: Set<Int32> = [4, 5, 6, 11]
}
