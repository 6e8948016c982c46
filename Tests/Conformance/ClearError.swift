import StrataTesting
import Testing

/// A refusal as a user wants it: exit status `status`, no signal, nothing that looks like a crash, one line or few, naming the thing.
func expectClearError(
    _ finished: Finished, naming words: [String] = [], status: Int32 = 1, atMostLines: Int = 3, sourceLocation: SourceLocation = #_sourceLocation
) {
    #expect(finished.ending == .exited(status), "\(finished)", sourceLocation: sourceLocation)
    let said = finished.errorText
    let lines = said.split(separator: "\n")
    #expect((1...atMostLines).contains(lines.count), "one clear error: \(finished)", sourceLocation: sourceLocation)
    for word in words {
        #expect(said.contains(word), "the error must name '\(word)': \(finished)", sourceLocation: sourceLocation)
    }
    for crash in ["Fatal error", "Stack dump", "Segmentation", "Swift runtime failure"] {
        #expect(!said.contains(crash), "a trap: \(finished)", sourceLocation: sourceLocation)
    }
}
