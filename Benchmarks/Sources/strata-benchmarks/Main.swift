import Glibc
import Strata

/// Micro-benchmarks of the library: what one call costs inside a process, without tools, sockets or clients.
///
///     swift run -c release --package-path Benchmarks strata-benchmarks [--smoke] [name]
@main
enum Main {
    static func main() async throws {
        let arguments = CommandLine.arguments.dropFirst()
        let smoke = arguments.contains("--smoke")
        let filter = arguments.first { !$0.hasPrefix("--") } ?? ""
        var name = Array("/dev/shm/strata-benchmarks.XXXXXX".utf8CString)
        guard mkdtemp(&name) != nil else { throw Failure(description: "cannot make a folder in /dev/shm") }
        let folder = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        defer {
            for format in ["raw", "qcow2"] { unlink("\(folder)/disk.\(format)") }
            rmdir(folder)
        }
        for benchmark in Benchmark.all where benchmark.name.contains(filter) {
            let storage = try Storage()
            let disk = try await makeDisk(in: folder, format: benchmark.format, with: storage)
            let (perSecond, sum) = try await benchmark.run(on: disk, count: smoke ? 200 : 200_000)
            let label = "\(benchmark.format) \(benchmark.name) d\(benchmark.depth)"
            print(label + String(repeating: " ", count: max(1, 32 - label.count)) + "\(Int(perSecond)) per second, sum \(sum)")
            try await disk.close()
            try await storage.close()
        }
    }

    struct Failure: Error { let description: String }
}
