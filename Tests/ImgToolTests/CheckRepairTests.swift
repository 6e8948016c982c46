import Foundation
import Testing

/// `check -r` against qemu-img, on an image with a cluster that nobody uses and on one with a cluster that nobody has counted.
@Suite("check -r repairs and says so as qemu-img does", .serialized)
struct CheckRepairTests {
    /// Writes a 16-bit refcount into the first refcount block.
    private static func setRefcount(_ count: UInt8, ofCluster cluster: Int, in file: URL, growingTo clusters: Int? = nil) throws {
        var data = try Data(contentsOf: file)
        func number(at offset: Int) -> Int { data[offset..<offset + 8].reduce(0) { $0 << 8 | Int($1) } }
        let block = number(at: number(at: 48))
        data[block + 2 * cluster] = 0
        data[block + 2 * cluster + 1] = count
        if let clusters { data.append(Data(count: clusters * 65536 - data.count)) }
        try data.write(to: file)
    }

    @Test("leaks", arguments: [["-r", "leaks"], ["-r", "all"], ["-q", "-r", "all"], ["--output=json", "-r", "leaks"], []])
    func leaks(flags: [String]) throws {
        try compare(flags) { file in try Self.setRefcount(1, ofCluster: 25, in: file, growingTo: 30) }
    }

    @Test("clusters in use that are counted as free", arguments: [["-r", "leaks"], ["-r", "all"], ["-q", "-r", "all"], ["--output=json", "-r", "all"], []])
    func corruptions(flags: [String]) throws {
        try compare(flags) { file in try Self.setRefcount(0, ofCluster: 6, in: file) }
    }

    private func compare(_ flags: [String], _ damage: (URL) throws -> Void) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([["create", "-q", "-f", "qcow2", "b.qcow2", "10M"], ["io", "-c", "write -P 1 0 1M", "b.qcow2"]])
        for directory in [pair.ours, pair.theirs] { try damage(directory.appendingPathComponent("b.qcow2")) }
        let (ours, theirs) = (try pair.runOurs(["check"] + flags + ["b.qcow2"]), try pair.runTheirs(["check"] + flags + ["b.qcow2"]))
        // Where the refcounts lie afterwards is each program's own business, and whether an entry that says something about a wrong refcount counts too.
        func withoutEnd(_ text: String) -> [Substring] {
            text.split(separator: "\n").filter { !$0.contains("nd offset") && !$0.contains("end-offset") && !$0.hasSuffix(" corruptions") && !$0.contains("corruptions-fixed") }
        }
        if flags != ["-r", "leaks"] || theirs.status == 0 {
            #expect(ours.status == theirs.status && withoutEnd(ours.output) == withoutEnd(theirs.output), "\(ours)\n\(theirs)")
        } else {
            // QEMU fails altogether where there is more to repair than leaks.
            #expect(ours.status != 0, "\(ours)")
        }
        let check = try ToolPair.run(ToolPair.qemu, ["check", "b.qcow2"], in: pair.ours)
        #expect(flags.contains("all") ? check.status == 0 : true, "\(check)")
    }
}
