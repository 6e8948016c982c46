import Foundation
import Testing

/// Runs command lines with qemu-img and with ours, in directories that start out the same, and expects the same of both.
struct CommandScript {
    /// What both directories hold at first: arguments of qemu-img, or of qemu-io behind the word `io`.
    var images: [[String]] = standardImages

    /// A chain of three over raw and qcow2, and files whose sizes are no whole sectors.
    static let standardImages: [[String]] = [
        ["create", "-q", "a.raw", "10M"], ["io", "-f", "raw", "-c", "write -P 3 1M 300k", "a.raw"],
        ["create", "-q", "-f", "qcow2", "b.qcow2", "10M"], ["io", "-c", "write -P 1 0 1M", "-c", "write -P 2 5M 100k", "b.qcow2"],
        ["create", "-q", "-f", "qcow2", "-b", "b.qcow2", "-F", "qcow2", "c.qcow2"],
        ["io", "-c", "write -P 3 1M 64k", "-c", "write -z 2M 64k", "-c", "discard 5M 64k", "-c", "write -c -P 9 6M 64k", "c.qcow2"],
        ["create", "-q", "-f", "qcow2", "-b", "c.qcow2", "-F", "qcow2", "d.qcow2"], ["io", "-c", "write -P 4 512k 64k", "d.qcow2"],
        ["create", "-q", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "long.qcow2", "20M"], ["io", "-c", "write -P 5 15M 64k", "long.qcow2"],
        ["create", "-q", "-f", "qcow2", "e.qcow2", "10M"], ["create", "-q", "empty.raw", "0"],
    ]

    /// - Parameters:
    ///   - commands: blank-separated words; `''` is an empty one.
    ///   - comparing: images whose guest contents have to be the same in the end, by name and format.
    func expectSame(_ commands: [String], comparing results: [String: String] = [:], sourceLocation: SourceLocation = #_sourceLocation) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare(images)
        for directory in [pair.theirs, pair.ours] {
            for (name, count) in [("s3", 3), ("s400", 400), ("s1000", 1000)] {
                try Data((0..<count).map { UInt8(truncatingIfNeeded: $0 + 1) }).write(to: directory.appendingPathComponent(name))
            }
        }
        for command in commands {
            let arguments = command.split(separator: " ").map { $0 == "''" ? "" : String($0) }
            let theirs = try pair.runTheirs(arguments)
            let ours = try pair.runOurs(arguments)
            #expect(Self.withoutAllocation(ours) == Self.withoutAllocation(theirs), "qemu-img \(command)", sourceLocation: sourceLocation)
        }
        func names(in directory: URL) throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted() }
        #expect(try names(in: pair.ours) == names(in: pair.theirs), sourceLocation: sourceLocation)
        for (name, format) in results.sorted(by: { $0.key < $1.key }) {
            let paths = [pair.theirs, pair.ours].map { $0.appendingPathComponent(name).path }
            let comparison = try ToolPair.run(ToolPair.qemu, ["compare", "-f", format, "-F", format] + paths, in: pair.root)
            #expect(comparison.status == 0, "\(name): \(comparison)", sourceLocation: sourceLocation)
            let sizes = try paths.map { try ToolPair.run(ToolPair.qemu, ["map", "--output=json", "-f", format, $0], in: pair.root) }
            #expect(sizes.allSatisfy { $0.status == 0 }, "\(name): \(sizes)", sourceLocation: sourceLocation)
            if format == "qcow2" {
                let check = try ToolPair.run(ToolPair.qemu, ["check", paths[1]], in: pair.root)
                #expect(check.status == 0, "\(name): \(check)", sourceLocation: sourceLocation)
            }
        }
    }

    /// What a file takes on the disk is up to the file system, and when it decides.
    private static func withoutAllocation(_ outcome: ToolPair.Outcome) -> ToolPair.Outcome {
        var outcome = outcome
        let lines = outcome.output.split(separator: "\n", omittingEmptySubsequences: false)
        // Newer than the QEMU that answers here.
        let newer = "keep_data_file"
        outcome.output = lines.filter { !$0.contains("disk size:") && !$0.contains("\"actual-size\":") && !$0.contains(newer) }.joined(separator: "\n")
        return outcome
    }
}
