import Glibc
import StrataBase
import TraceCompiler

/// The trace compiler's command line: reads one `trace-events` file, writes one Swift file.
@main
struct TraceGen {
    static func main() {
        let arguments = CommandLine.arguments
        guard arguments.count == 4 else {
            fail("usage: trace-gen MODULE TRACE-EVENTS OUTPUT.swift")
        }
        do {
            let text = String(decoding: try SmallFile.read(arguments[2]), as: UTF8.self)
            let declarations = try TraceParser.parse(text, file: arguments[2])
            let output = Array(TraceEmitter.swift(declarations, module: arguments[1]).utf8)
            // A file that already says the same keeps its date, so that builds do not run again for nothing.
            if (try? SmallFile.read(arguments[3])) != output { try SmallFile.write(output, to: arguments[3]) }
        } catch {
            fail("\(error)")
        }
    }

    private static func fail(_ message: String) -> Never {
        // Where even standard error is closed there is nobody left to tell.
        try? SmallFile.write(Array((message + "\n").utf8), toDescriptor: STDERR_FILENO)
        exit(1)
    }
}
