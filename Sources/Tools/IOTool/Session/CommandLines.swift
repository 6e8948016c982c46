import IOCore

/// Runs commands as they come, one line each.
struct CommandLines {
    let session: IOSession
    /// 1 as soon as one command has failed.
    private(set) var status: Int32 = 0

    init(_ session: IOSession) { self.session = session }

    /// A failure is printed and remembered; the commands that follow are carried out all the same.
    mutating func run(_ line: String) async {
        // Blanks separate words and nothing else does: there is no quoting.
        let words = line.split(separator: " ").map(String.init)
        guard let word = words.first else { return }
        guard let command = IOCommand.all.first(where: { $0.answers(to: word) }) else {
            StandardStreams.printError("command \"\(word)\" not found\n")
            status = 1
            return
        }
        do throws(CommandFailure) {
            try await run(command, calledAs: word, Array(words.dropFirst()))
        } catch {
            status = 1
            report(error, of: command)
        }
    }

    private func run(_ command: IOCommand, calledAs word: String, _ arguments: [String]) async throws(CommandFailure) {
        if command.needsImage { _ = try session.disk() }
        try command.checkCount(arguments.count, calledAs: word)
        if command.needsWriting, let disk = session.open?.disk, !disk.isWritable { throw .reported("Block node is read-only") }
        try await command.run(arguments, session)
    }

    private func report(_ failure: CommandFailure, of command: IOCommand) {
        switch failure {
        case .said(let text): StandardStreams.print("\(text)\n")
        case .complained(let text): StandardStreams.printError("\(text)\n")
        case .reported(let text): StandardStreams.printError("\(session.name): \(text)\n")
        case .usage(let complaint):
            if let complaint { StandardStreams.printError("\(complaint)\n") }
            StandardStreams.print(command.usage)
        case .silent: break
        }
    }
}
