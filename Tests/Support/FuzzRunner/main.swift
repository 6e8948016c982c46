import Foundation
import FuzzTargets

// Scripts/fuzz builds this with libFuzzer and runs it. The first argument names the target; `--seeds FOLDER` writes its seeds, and its dictionary
// beside them; everything else is libFuzzer's.

/// libFuzzer's entry for programs that have a main function of their own. Source: LLVM's documentation, "Using libFuzzer as a library".
@_silgen_name("LLVMFuzzerRunDriver")
func runDriver(
    _ count: UnsafeMutablePointer<Int32>, _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>,
    _ callback: @convention(c) (UnsafePointer<UInt8>?, Int) -> Int32
) -> Int32

// Half of the time would go into noting the operands of every comparison of 64-bit numbers. The dictionaries have the numbers that formats compare with, so
// that the linker leads those calls here.
@_cdecl("__wrap___sanitizer_cov_trace_cmp8") func ignoreComparison(_: UInt64, _: UInt64) {}
@_cdecl("__wrap___sanitizer_cov_trace_const_cmp8") func ignoreComparisonWithConstant(_: UInt64, _: UInt64) {}

/// What the callback calls. It has no context of its own.
nonisolated(unsafe) var target: any FuzzTarget.Type = fuzzTargets[0]

func fail(_ message: String) -> Never {
    FileHandle.standardError.write(Data("strata-fuzz: \(message)\n".utf8))
    exit(2)
}

let names = fuzzTargets.map { $0.name }.joined(separator: ", ")
guard CommandLine.arguments.count > 1, let chosen = fuzzTargets.first(where: { $0.name == CommandLine.arguments[1] }) else { fail("name a target: \(names)") }
target = chosen

if CommandLine.arguments.count == 4, CommandLine.arguments[2] == "--seeds" {
    let folder = URL(filePath: CommandLine.arguments[3], directoryHint: .isDirectory)
    do {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        for (number, seed) in try chosen.seeds().enumerated() { try Data(seed).write(to: folder.appending(path: "seed-\(number)")) }
        let words = chosen.dictionary.map { word in "\"" + word.map { "\\x" + String(Int($0) + 0x100, radix: 16).dropFirst() }.joined() + "\"\n" }
        try Data(words.joined().utf8).write(to: URL(filePath: CommandLine.arguments[3] + ".dict"))
    } catch { fail("\(error)") }
    exit(0)
}

var words: [UnsafeMutablePointer<CChar>?] = ([CommandLine.arguments[0]] + CommandLine.arguments.dropFirst(2)).map { strdup($0) } + [nil]
var count = Int32(words.count - 1)
let status = words.withUnsafeMutableBufferPointer { buffer in
    var base = buffer.baseAddress
    return runDriver(&count, &base) { bytes, size in
        target.run(Array(UnsafeBufferPointer(start: bytes, count: size)))
        return 0
    }
}
exit(status)
