import IOCore

extension IOCommand {
    static let help = IOCommand(
        name: "help", alias: "?", arguments: "[command]", summary: "explain one command, or list all", count: 0...1, needsImage: false
    ) { arguments, session throws(CommandFailure) in
        guard let word = arguments.first else {
            StandardStreams.print(all.map(\.usage).joined() + "\nUse 'help commandname' for extended help.\n")
            return
        }
        guard let command = all.first(where: { $0.answers(to: word) }) else { throw .said("command \(word) not found") }
        StandardStreams.print(command.help)
    }

    static let quit = IOCommand(name: "quit", alias: "q", summary: "leave", count: 0...manyArguments, needsImage: false) { _, session throws(CommandFailure) in
        session.isOver = true
    }

    static let sleep = IOCommand(name: "sleep", summary: "wait so many milliseconds", count: 1...1, needsImage: false) { arguments, session throws(CommandFailure) in
        let milliseconds = try ArgumentValues.count(arguments[0])
        // What is under way goes on meanwhile.
        await session.context.sleep(for: .milliseconds(milliseconds))
    }

    static let abort = IOCommand(name: "abort", summary: "end as in a crash, with SIGABRT", count: 0...0, needsImage: false) { _, _ throws(CommandFailure) in
        ProcessEnd.abort()
    }

    static let raiseSignal = IOCommand(
        name: "sigraise", arguments: "signal", summary: "send a signal to the tool itself", details: [" 'sigraise 15' sends SIGTERM to the tool itself."], count: 1...1,
        needsImage: false
    ) { arguments, _ throws(CommandFailure) in
        let number = try ArgumentValues.bytes(arguments[0])
        guard let signal = Int32(exactly: number) else { throw .said("signal argument '\(arguments[0])' is too large to be a valid signal number") }
        ProcessEnd.raise(signal)
    }
}
