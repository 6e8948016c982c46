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
        StandardStreams.print(command.help(calledAs: word))
    }

    static let quit = IOCommand(name: "quit", alias: "q", summary: "leave", count: 0...manyArguments, needsImage: false) { _, session throws(CommandFailure) in
        session.isOver = true
    }

    static let sleep = IOCommand(name: "sleep", summary: "wait so many milliseconds", count: 1...1, needsImage: false) { arguments, session throws(CommandFailure) in
        // A time that no clock reaches, in nanoseconds, is over at once.
        guard let milliseconds = try ArgumentValues.count(arguments[0]), milliseconds <= longestSleep else { return }
        // What is under way goes on meanwhile.
        await session.context.sleep(for: .milliseconds(milliseconds))
    }

    /// In milliseconds: what is left of 63 bits of nanoseconds when the host has run for some years.
    private static let longestSleep = 9_000_000_000_000

    static let abort = IOCommand(name: "abort", summary: "end as in a crash, with SIGABRT", count: 0...0, needsImage: false) { _, _ throws(CommandFailure) in
        ProcessEnd.abort()
    }

    /// The largest number that is taken for a signal, whether or not it is one.
    private static let largestSignal = 65

    static let raiseSignal = IOCommand(
        name: "sigraise", arguments: "signal", summary: "send a signal to the tool itself", details: [" 'sigraise 15' sends SIGTERM to the tool itself."], count: 1...1,
        needsImage: false
    ) { arguments, _ throws(CommandFailure) in
        let number = try ArgumentValues.bytes(arguments[0])
        guard number <= largestSignal else { throw .said("signal argument '\(arguments[0])' is too large to be a valid signal") }
        ProcessEnd.raise(Int32(number))
    }
}
