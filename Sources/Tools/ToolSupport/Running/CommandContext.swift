package import IOCore

/// One command of a tool as it was called: `strata img create`.
package struct CommandContext: Sendable, Hashable {
    /// What the user typed to reach the command: `/usr/bin/qemu-img create`.
    package var program: String
    /// The tool's name in front of messages: `qemu-img`.
    package var name: String

    /// Where to read on after a wrong call.
    package var advice: String

    package init(_ invocation: ToolInvocation, command: String? = nil) {
        program = command.map { "\(invocation.program) \($0)" } ?? invocation.program
        name = invocation.name
        advice = "Try '\(program) --help' for more info"
    }

    /// Splits the arguments and does what `--trace` asks for, or fails with the C library's message and a pointer to the help text.
    package func parse<Key: OptionKey>(
        _ arguments: [String], as declaration: CommandDeclaration<Key>, stopsAtFirstOperand: Bool = false
    ) throws(ToolFailure) -> ParsedArguments<Key> {
        let parsed: ParsedArguments<Key>
        do throws(ArgumentError) {
            parsed = try ArgumentParser(
                declaration.options, stopsAtFirstOperand: stopsAtFirstOperand, hasNegativeOperand: declaration.hasNegativeOperand).parse(arguments)
        } catch {
            // The C library puts the program as typed in front of its messages, not the short name.
            var failure = usageFailure(error.message)
            failure.speaker = program
            throw failure
        }
        // A call for help prints the help and does nothing else.
        if !parsed.contains(.help) { try TraceOptions.apply(parsed.traces, tool: name) }
        return parsed
    }

    /// The I/O context that the command runs on.
    package var ioContext: IOContext {
        guard let context = IOContext.current else { preconditionFailure("tools run on an I/O context") }
        return context
    }

    /// A wrong call: the message and where to read on.
    package func usageFailure(_ message: String) -> ToolFailure {
        ToolFailure(message, advice: [advice])
    }
}
