import Foundation
import QCOW2Testing
import StrataTesting

// Judges crash states of qcow2 images by the million (Docs/CrashConsistency.md). Scripts/crash-search builds it with optimization and runs it.
//
// Usage: crash-search STATES [FIRST-SEED]
// All histories of three operations first, then long random ones from FIRST-SEED (0) on until STATES states were judged.

func complain(_ message: String) -> Never {
    FileHandle.standardError.write(Data("crash-search: \(message)\n".utf8))
    exit(1)
}

let words = CommandLine.arguments
guard (2...3).contains(words.count), let wanted = Int(words[1]), let first = UInt64(words.count == 3 ? words[2] : "0") else {
    complain("usage: crash-search STATES [FIRST-SEED]")
}
let clock = ContinuousClock(), begin = clock.now
var states = 0, histories = 0

@MainActor func report(_ what: String) {
    let line = "\(what): \(states) states of \(histories) histories, \((clock.now - begin).components.seconds) s\n"
    FileHandle.standardOutput.write(Data(line.utf8))
}

do {
    for kind in CrashProof.ImageKind.allCases where words.count == 2 {
        for operation in CrashProof.alphabet {
            let found = try await CrashProof.judgeTriples(beginningWith: operation, kind)
            states += found.states
            histories += found.histories
        }
        report("three operations, \(kind)")
    }
    var seed = first
    while states < wanted {
        states += try await CrashProof.judgeRandomHistory(seed: seed, limit: 512)
        histories += 1
        seed += 1
        if seed % 200 == 0 { report("seeds \(first) to \(seed - 1)") }
    }
    report("nothing is corrupt, nothing flushed is lost")
} catch { complain("\(error)") }
