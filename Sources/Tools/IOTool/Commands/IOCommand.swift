/// One command of the tool: how it is called, what it needs, and what it does.
struct IOCommand: Sendable {
    let name: String
    var alias: String?
    /// What follows the name, as the usage line shows it.
    var arguments = ""
    /// What it does, in a few words.
    let summary: String
    /// More about it, for `help NAME`: lines as they are printed.
    var details: [String] = []
    /// How many arguments it takes, options included.
    let count: ClosedRange<Int>
    var needsImage = true
    var needsWriting = false
    let run: @Sendable (_ arguments: [String], _ session: IOSession) async throws(CommandFailure) -> Void

    /// More arguments than anybody gives.
    static let manyArguments = Int(Int32.max)

    var usage: String { usage(calledAs: name) }

    private func usage(calledAs word: String) -> String { "\(word)\(arguments.isEmpty ? "" : " \(arguments)") -- \(summary)\n" }

    func help(calledAs word: String) -> String {
        usage(calledAs: word) + (details.isEmpty ? "" : "\n" + details.map { "\($0)\n" }.joined() + "\n")
    }

    func answers(to word: String) -> Bool { word == name || word == alias }

    /// - Throws: `.complained` when there are too few or too many arguments.
    func checkCount(_ given: Int, calledAs word: String) throws(CommandFailure) {
        if count.contains(given) { return }
        let expected =
            count.upperBound == Self.manyArguments
            ? "at least \(count.lowerBound)"
            : count.lowerBound == count.upperBound ? "\(count.lowerBound)" : "between \(count.lowerBound) and \(count.upperBound)"
        throw .complained("bad argument count \(given) to \(word), expected \(expected) arguments")
    }
}

extension IOCommand {
    /// All of them, in the order in which `help` lists them.
    static let all: [IOCommand] = [
        abort, aioFlush, aioRead, aioWrite, alloc, breakpoint, close, discard, flush, help, info, length, map, open, quit, read, readv,
        removeBreakpoint, reopen, resume, raiseSignal, sleep, truncate, waitForBreakpoint, write, writev, zoneAppend, zoneClose, zoneFinish, zoneOpen,
        zoneReport, zoneReset,
    ]
}
