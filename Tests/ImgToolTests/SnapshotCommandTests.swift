import Foundation
import Testing

@Suite("snapshot, and convert of a snapshot, do what qemu-img does", .serialized)
struct SnapshotCommandTests {
    /// Dates differ by the moment that passes between two commands.
    private static func withoutDates(_ outcome: ToolPair.Outcome) -> ToolPair.Outcome {
        var outcome = outcome
        outcome.output = outcome.output.replacing(#/[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:]{8}/#, with: "0000-00-00 00:00:00")
        return outcome
    }

    private static func run(_ commands: [String], after more: [[String]] = []) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare(CommandScript.standardImages + more)
        for command in commands {
            let arguments = command.split(separator: " ").map { $0 == "''" ? "" : String($0) }
            #expect(withoutDates(try pair.runOurs(arguments)) == withoutDates(try pair.runTheirs(arguments)), "qemu-img \(command)")
        }
        for name in ["b.qcow2", "c.qcow2", "d.qcow2"] {
            let paths = [pair.theirs, pair.ours].map { $0.appendingPathComponent(name).path }
            #expect(try ToolPair.run(ToolPair.qemu, ["compare"] + paths, in: pair.root).status == 0, "\(name)")
            #expect(try ToolPair.run(ToolPair.qemu, ["check", paths[1]], in: pair.root).status == 0, "\(name)")
        }
        for name in ["o1.raw", "o2.raw", "o3.raw", "o4.raw"] where FileManager.default.fileExists(atPath: pair.theirs.appendingPathComponent(name).path) {
            let paths = [pair.theirs, pair.ours].map { $0.appendingPathComponent(name).path }
            #expect(try ToolPair.run(ToolPair.qemu, ["compare", "-f", "raw", "-F", "raw"] + paths, in: pair.root).status == 0, "\(name)")
        }
    }

    @Test("snapshots are listed, made, applied and deleted")
    func lifecycle() throws {
        try Self.run([
            "snapshot b.qcow2", "snapshot -l b.qcow2", "snapshot -c s1 b.qcow2", "snapshot -l b.qcow2",
            "snapshot -q -c s1 b.qcow2", "snapshot b.qcow2", "snapshot -a 1 b.qcow2", "compare b.qcow2 e.qcow2", "snapshot -a s1 b.qcow2", "snapshot -d s1 b.qcow2",
            "snapshot -l b.qcow2", "snapshot -a 2 b.qcow2", "snapshot -d 2 b.qcow2", "snapshot -c averyverylongsnapshotnamethatisverylong b.qcow2", "snapshot -c 1 b.qcow2",
            "snapshot -U -l b.qcow2", "snapshot -d 1 b.qcow2", "snapshot --image-opts -l driver=qcow2,file.filename=b.qcow2", "snapshot --list b.qcow2",
            "snapshot -c top d.qcow2", "snapshot -a top d.qcow2", "commit d.qcow2", "snapshot -a top d.qcow2", "snapshot -l a.raw", "snapshot -f raw -l a.raw",
        ])
    }

    @Test("a name is cut to the 255 bytes that QEMU reads, and is found by them only")
    func longNames() throws {
        let long = String(repeating: "n", count: 300)
        let stored = String(repeating: "n", count: 255)
        try Self.run(["-c \(long)", "-l", "-a \(long)", "-d \(long)", "-a \(stored)", "-d \(stored)", "-l", "-c \(stored)", "-l"].map { "snapshot \($0) b.qcow2" } + ["convert -l \(long) b.qcow2 o1.raw", "convert -l \(stored) b.qcow2 o1.raw"])
    }

    @Test("a name that is cut ends with a whole character")
    func longNameOfLongCharacters() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([["create", "-q", "-f", "qcow2", "b", "1M"]])
        #expect(try pair.runOurs(["snapshot", "-c", String(repeating: "n", count: 254) + "éé", "b"]).status == 0)
        #expect(try ToolPair.run(ToolPair.qemu, ["snapshot", "-d", String(repeating: "n", count: 254), "b"], in: pair.ours).status == 0)
    }

    @Test("what cannot be done is refused in the same words")
    func refusals() throws {
        try Self.run([
            "snapshot -d nosuch b.qcow2", "snapshot -a nosuch b.qcow2", "snapshot -c s1 a.raw", "snapshot -f raw -c s1 a.raw", "snapshot -f raw -a s1 a.raw",
            "snapshot -f raw -d s1 a.raw", "snapshot", "snapshot a b", "snapshot -l -c x b.qcow2", "snapshot -c x -d y b.qcow2", "snapshot -l nosuch", "snapshot -U -c x b.qcow2",
            "snapshot -t none -l b.qcow2", "snapshot -l -l b.qcow2", "snapshot -c", "snapshot -a x -a y b.qcow2", "snapshot --image-opts -f raw x", "snapshot -f foo -l b.qcow2",
        ])
    }

    @Test("convert -l reads the snapshot, chosen by ID, by name or by both")
    func convert() throws {
        let more = [["snapshot", "-c", "s1", "b.qcow2"], ["io", "-c", "write -P 9 512k 2M", "b.qcow2"], ["snapshot", "-c", "s2", "b.qcow2"], ["io", "-c", "discard 0 3M", "b.qcow2"]]
        try Self.run([
            "convert -l s1 b.qcow2 o1.raw", "convert -l 2 b.qcow2 o2.raw", "convert -l snapshot.id=2,snapshot.name=s2 -O raw b.qcow2 o3.raw", "convert -l snapshot.id=3 b.qcow2 o",
            "convert -l nosuch b.qcow2 o", "convert -l snapshot.foo=1 b.qcow2 o", "convert -l s1 a.raw o", "convert -l s1 b.qcow2 b.qcow2 o", "convert -l '' b.qcow2 o",
            "convert -l snapshot.name=nosuch b.qcow2 o", "convert -l snapshot.name=nosuch b.qcow2 e.qcow2 o",
            "convert -l snapshot.name=s1 -O raw b.qcow2 e.qcow2 o4.raw",
        ], after: more)
    }

    @Test("convert --salvage makes zeroes of sectors that cannot be read, and names them unless it is to be quiet", arguments: [[], ["-q"]])
    func salvage(flags: [String]) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare([["create", "-q", "a.raw", "2M"], ["io", "-f", "raw", "-c", "write -P 7 0 2M", "a.raw"]])
        let failing = "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"blkdebug\",\"image\":{\"driver\":\"file\",\"filename\":\"a.raw\"},"
            + "\"inject-error\":[{\"event\":\"read_aio\",\"errno\":5,\"once\":false,\"sector\":640}]}}"
        let arguments = ["convert", "--salvage"] + flags + [failing, "o.raw"]
        #expect(try pair.runOurs(arguments) == pair.runTheirs(arguments))
        #expect(try pair.runOurs(["convert", failing, "p.raw"]).status == 1)
        for directory in [pair.ours, pair.theirs] {
            let data = try Data(contentsOf: directory.appendingPathComponent("o.raw"))
            #expect(data.indices.filter { data[$0] == 0 } == Array(640 * 512..<641 * 512))
        }
    }
}
