import IOCore
import QAPIRuntime
import StrataBase
import ToolSupport

/// Shows how the server's jobs get on, until each is over or waits for its user: a bar for each, drawn anew in place, or JSON lines.
struct JobFollower {
    let client: QMPClient
    let context: IOContext
    let style: ProgressReporter.Style

    private static let interval = Duration.milliseconds(250)

    /// - Returns: whether no job has failed meanwhile, as far as the server still knew it.
    func run() async throws(ToolFailure) -> Bool {
        var meters: [JobMeter] = []
        var failed: [String: String] = [:]
        var drawn = 0
        let start = ContinuousClock.now
        while true {
            let jobs: [JSONValue]
            switch try await client.execute("query-jobs", JSONObject()) {
            case .success(let value): jobs = value.array ?? []
            case .failure(let error): throw ToolFailure("The server does not tell of its jobs: \(error.message)")
            }
            let passed = start.duration(to: .now).components
            let now = Double(passed.seconds) + Double(passed.attoseconds) / 1e18
            // The oldest first: that is how people have started them.
            meters = jobs.reversed().map { job in
                let id = job["id"]?.string ?? ""
                var meter = meters.first { $0.id == id } ?? JobMeter(id: id)
                meter.note(job, now: now)
                if let error = job["error"]?.string { failed[id] = error }
                return meter
            }
            drawn = show(meters, over: drawn)
            if meters.allSatisfy(\.waitsForUser) { break }
            await context.sleep(for: Self.interval)
        }
        for (id, error) in failed.sorted(by: { $0.key < $1.key }) { StandardStreams.printError("job '\(id)': \(error)\n") }
        return failed.isEmpty
    }

    /// - Parameter drawn: how many lines stand there from the last time.
    /// - Returns: how many stand there now.
    private func show(_ meters: [JobMeter], over drawn: Int) -> Int {
        if style == .json {
            for meter in meters { StandardStreams.print(meter.json + "\n") }
            return 0
        }
        let isTerminal = Terminal.isInteractive
        var text = isTerminal && drawn > 0 ? "\u{1b}[\(drawn)A" : ""
        for meter in meters { text += meter.line(columns: isTerminal ? Terminal.columns : 100) + (isTerminal ? "\u{1b}[K\n" : "\n") }
        // What is over has left the list.
        if isTerminal, drawn > meters.count { text += "\u{1b}[J" }
        StandardStreams.print(text)
        return meters.count
    }
}
