import Foundation
import Testing

@Suite("what commands say while they work", .serialized)
struct ProgressTests {
    /// A slow conversion, its output so far one line that says that it has begun.
    private func withConversion(_ flags: [String], _ body: (Process, _ output: FileHandle, _ errors: FileHandle) throws -> Void) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([["create", "-q", "a.raw", "4M"], ["io", "-f", "raw", "-c", "write -P 7 0 4M", "a.raw"]])
        let process = Process()
        process.executableURL = pair.program
        process.arguments = ["convert", "-f", "raw", "-r", "4M", "-m", "1"] + flags + ["a.raw", "o.raw"]
        process.currentDirectoryURL = pair.ours
        let (output, errors) = (Pipe(), Pipe())
        (process.standardOutput, process.standardError) = (output, errors)
        try process.run()
        defer {
            if process.isRunning { process.terminate() }
            process.waitUntilExit()
        }
        try body(process, output.fileHandleForReading, errors.fileHandleForReading)
    }

    @Test("SIGUSR1 asks how far it is, and the work goes on")
    func question() throws {
        try withConversion(["-p"]) { process, output, errors in
            _ = output.availableData
            kill(process.processIdentifier, SIGUSR1)
            let answer = String(decoding: errors.availableData, as: UTF8.self)
            #expect(answer.wholeMatch(of: #/    \([0-9.]+/100%\)\n/#) != nil, "\(answer)")
            _ = output.readDataToEndOfFile()
            process.waitUntilExit()
            #expect(process.terminationStatus == 0 && process.terminationReason == .exit)
        }
    }

    @Test("an interrupted conversion says that its target is incomplete", arguments: [SIGINT, SIGTERM])
    func interruption(signal: Int32) throws {
        try withConversion(["-p"]) { process, output, errors in
            _ = output.availableData
            kill(process.processIdentifier, signal)
            let words = String(decoding: errors.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            #expect(words.contains("qemu-img: interrupted: 'o.raw' is incomplete\n"), "\(words)")
            #expect(process.terminationReason == .uncaughtSignal && process.terminationStatus == signal)
        }
    }

    @Test("--progress=json prints objects that grow to 100")
    func json() throws {
        try withConversion(["--progress=json"]) { process, output, _ in
            let lines = String(decoding: output.readDataToEndOfFile(), as: UTF8.self).split(separator: "\n")
            process.waitUntilExit()
            #expect(process.terminationStatus == 0)
            let values = try lines.map { line in
                try #require((try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Double])?["progress"])
            }
            #expect(values == values.sorted() && values.first == 0 && values.last == 100 && values.count > 3, "\(values)")
        }
    }

    @Test("a style of progress that does not exist is refused")
    func unknown() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        #expect(try pair.runOurs(["convert", "--progress=xml", "a", "b"]).errors == "qemu-img: --progress expects 'line' or 'json' not 'xml'\n")
    }
}
