import Foundation
import StrataTesting
import Testing

/// Commands that change a chain: commit and rebase.
@Suite("commit and rebase do what qemu-img does", .serialized)
struct ChainCommandTests {
    private static let everything = ["a.raw": "raw", "b.qcow2": "qcow2", "c.qcow2": "qcow2", "d.qcow2": "qcow2", "long.qcow2": "qcow2"]

    @Test("commit writes an image into the next one or into one further down, and empties it if that is meant", arguments: [
        ["commit d.qcow2", "map --output=json d.qcow2"], ["commit -d d.qcow2", "map --output=json d.qcow2"],
        ["commit -b b.qcow2 d.qcow2", "info d.qcow2 --output=json", "commit -b b.qcow2 d.qcow2"], ["commit -b ./b.qcow2 d.qcow2"], ["commit -q d.qcow2", "commit -q c.qcow2"],
        ["commit long.qcow2", "info a.raw"], ["resize d.qcow2 20M", "commit d.qcow2"], ["resize --shrink long.qcow2 1M", "commit long.qcow2", "info a.raw"],
        ["commit -r 1G d.qcow2"], ["commit -t none d.qcow2"], ["commit -t writethrough d.qcow2"], ["commit -t unsafe d.qcow2"],
        ["commit --image-opts driver=qcow2,file.filename=d.qcow2"],
    ])
    func commit(commands: [String]) throws {
        try CommandScript().expectSame(commands, comparing: Self.everything)
    }

    @Test("commit refuses in the same words")
    func commitRefusals() throws {
        try CommandScript().expectSame([
            "commit -b nosuch d.qcow2", "commit -b a.raw d.qcow2", "commit -b d.qcow2 d.qcow2", "commit -b '' d.qcow2", "commit a.raw", "commit b.qcow2", "commit", "commit a b",
            "commit -t foo d.qcow2", "commit -r x d.qcow2", "commit nosuch", "commit -f raw a.raw", "commit --image-opts -f qcow2 x", "commit -x",
        ], comparing: Self.everything)
    }

    @Test("a chain goes on through filters, and ends at plain bytes")
    func commitThroughOtherNodes() throws {
        let raw = "driver=raw,file.driver=qcow2,file.file.filename=d.qcow2"
        let throttle = "--object throttle-group,id=g --image-opts driver=throttle,throttle-group=g,file.driver=qcow2,file.file.filename=d.qcow2"
        let first = [
            "commit --image-opts \(raw)", "commit -b c.qcow2 --image-opts \(raw)", "commit -b a.raw --image-opts \(raw)", "commit -b b.qcow2 j.qcow2", "commit -b c.qcow2 j.qcow2",
            "map --output=json d.qcow2", "commit \(throttle)", "map --output=json d.qcow2",
        ]
        var script = CommandScript()
        // A raw image whose bytes another image shows, as a backing file.
        let bytes = #"json:{"driver":"raw","file":{"driver":"qcow2","file":{"driver":"file","filename":"c.qcow2"}}}"#
        script.images += [["create", "-q", "-f", "qcow2", "-u", "-b", bytes, "-F", "raw", "j.qcow2", "1M"], ["io", "-c", "write -P 5 64k 64k", "j.qcow2"]]
        try script.expectSame(first + ["commit j.qcow2"], comparing: Self.everything)
        try script.expectSame(["commit -b b.qcow2 \(throttle)"], comparing: Self.everything)
    }

    @Test("rebase keeps what the guest sees", arguments: [
        ["rebase -b b.qcow2 -F qcow2 d.qcow2"], ["rebase -b '' d.qcow2"], ["rebase -b a.raw -F raw d.qcow2"],
        ["rebase -b c.qcow2 -F qcow2 d.qcow2"], ["rebase -c -b b.qcow2 -F qcow2 d.qcow2"], ["rebase -c -b '' d.qcow2"], ["rebase -b b.qcow2 -F qcow2 long.qcow2"],
        ["rebase -b d.qcow2 -F qcow2 e.qcow2"], ["rebase -b '' e.qcow2"], ["rebase -b wide.qcow2 -F qcow2 long.qcow2"], ["rebase -c -b wide.qcow2 -F qcow2 long.qcow2"], ["rebase -q -t none -T none -b a.raw -F raw c.qcow2"],
        ["rebase --image-opts -b b.qcow2 -F qcow2 driver=qcow2,file.filename=d.qcow2"], ["rebase -U -b b.qcow2 -F qcow2 d.qcow2"],
        ["resize b.qcow2 20M", "rebase -b a.raw -F raw c.qcow2", "resize c.qcow2 20M"], ["resize --shrink a.raw -f raw 5M", "rebase -b a.raw -F raw d.qcow2"],
    ])
    func rebase(commands: [String]) throws {
        var script = CommandScript()
        script.images += [
            ["create", "-q", "-f", "qcow2", "wide.qcow2", "20M"], ["io", "-c", "write -P 7 9M 3M", "-c", "write -P 8 19M 1M", "wide.qcow2"],
            ["create", "-q", "-f", "qcow2", "-o", "compat=0.10,cluster_size=4k", "-b", "c.qcow2", "-F", "qcow2", "v2.qcow2"], ["io", "-c", "write -P 6 100k 50k", "v2.qcow2"],
        ]
        try script.expectSame(commands + ["rebase -b a.raw -F raw v2.qcow2"], comparing: Self.everything.merging(["v2.qcow2": "qcow2", "e.qcow2": "qcow2"]) { a, _ in a })
    }

    @Test("unsafe rebase changes the name alone, and refusals have the same words")
    func rebaseNames() throws {
        try CommandScript().expectSame([
            "rebase -u -b nosuch -F raw d.qcow2", "info --output=json d.qcow2", "rebase -u -b c.qcow2 -F qcow2 d.qcow2", "info d.qcow2", "rebase -u -b nosuch d.qcow2",
            "rebase -u -c -b b.qcow2 -F qcow2 d.qcow2", "rebase -u -b '' -F qcow2 d.qcow2", "info d.qcow2", "rebase -u -b c.qcow2 -F qcow2 d.qcow2", "rebase -u d.qcow2",
            "info d.qcow2", "rebase -u -F raw d.qcow2", "rebase d.qcow2", "rebase -b b.qcow2 d.qcow2", "rebase -b nosuch -F raw d.qcow2", "rebase -b nosuch d.qcow2",
            "rebase -b a.raw -F qcow2 c.qcow2", "rebase -b a.raw -F foo c.qcow2", "rebase -b a.raw -F raw a.raw", "rebase -b a.raw -F raw -f raw a.raw",
            "rebase -u -b a.raw -F raw -f raw a.raw", "rebase -b '' -f raw a.raw", "rebase nosuch", "rebase -b x nosuch", "rebase", "rebase a b",
            "rebase -t foo -b b.qcow2 -F qcow2 c.qcow2", "rebase -T foo -b b.qcow2 -F qcow2 c.qcow2", "rebase --image-opts -f qcow2 -b b.qcow2 x", "rebase -F raw c.qcow2",
            "rebase -S 4k -b '' c.qcow2", "rebase -u -b nosuch -F foo c.qcow2", "rebase -u -b '' -F foo c.qcow2", "rebase -b b.qcow2 -F qcow2 -c -f raw a.raw",
            "rebase -b b.qcow2 -F foo -c -f raw a.raw",
            "rebase -u -c -b b.qcow2 -F qcow2 -f raw a.raw", "rebase -u -b nosuch a.raw", "rebase -b c.qcow2 -F qcow2 c.qcow2", "info c.qcow2", "info b.qcow2",
        ], comparing: ["a.raw": "raw", "b.qcow2": "qcow2", "c.qcow2": "qcow2"])
    }

    @Test("a name that is in another directory is relative to the image")
    func relativeNames() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare(CommandScript.standardImages)
        for directory in [pair.ours, pair.theirs] {
            try FileManager.default.createDirectory(at: directory.appendingPathComponent("sub"), withIntermediateDirectories: false)
            let made = try ToolPair.run(ToolPair.qemu, ["create", "-q", "-f", "qcow2", "-b", "../b.qcow2", "-F", "qcow2", "sub/o.qcow2"], in: directory)
            #expect(made.status == 0)
        }
        for arguments in [["-b", "../a.raw", "-F", "raw", "sub/o.qcow2"], ["-b", "b.qcow2", "-F", "qcow2", "sub/o.qcow2"], ["-b", "", "sub/o.qcow2"]] {
            #expect(try pair.runOurs(["rebase"] + arguments) == pair.runTheirs(["rebase"] + arguments), "\(arguments)")
        }
        #expect(try pair.runOurs(["compare", "sub/o.qcow2", "b.qcow2"]).status == 0)
    }

    @Test("random contents: a commit leaves in the base, and a rebase in the image, what the guest has seen", arguments: 1...6)
    func randomContents(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var script = CommandScript()
        let options = ["cluster_size=4k", "cluster_size=64k", "cluster_size=512", "compat=0.10,cluster_size=16k", "cluster_size=2M"]
        func writes() -> [String] {
            (0..<12).flatMap { _ -> [String] in
                let offset = Int(random.next() % 7000), count = 1 + Int(random.next() % 900)
                let kind = ["write -P \(1 + random.next() % 200)", "write -P \(1 + random.next() % 200)", "write -z", "discard"][Int(random.next() % 4)]
                return ["-c", "\(kind) \(offset * 512) \(count * 512)"]
            }
        }
        let (base, middle, top, other) = ("base.qcow2", "mid.qcow2", "top.qcow2", "other.qcow2")
        script.images = []
        for (name, below) in [(base, nil), (middle, base), (top, middle), (other, base)] as [(String, String?)] {
            let backing = below.map { ["-b", $0, "-F", "qcow2"] } ?? []
            script.images.append(["create", "-q", "-f", "qcow2", "-o", options[Int(random.next() % 5)]] + backing + [name] + (below == nil ? ["4M"] : []))
            script.images.append(["io"] + writes() + [name])
        }
        let compress = random.next() % 2 == 0 ? "-c " : ""
        let last = [
            "commit \(top)", "commit -d \(top)", "commit -b \(base) \(top)", "rebase \(compress)-b \(other) -F qcow2 \(top)", "rebase \(compress)-b \(base) -F qcow2 \(top)",
            "rebase \(compress)-b '' \(top)",
        ]
        for command in last {
            try script.expectSame([command], comparing: [base: "qcow2", top: "qcow2", middle: "qcow2"])
        }
    }

    @Test("convert does not write over what it reads, however far down that is", arguments: [
        "convert -n a.raw a.raw", "convert a.raw a.raw", "convert -n -f raw -O raw a.raw a.raw", "convert -f qcow2 -O raw o1 a.raw", "convert -O raw o2 a.raw", "convert -n -O raw o2 a.raw",
        "convert -O qcow2 o2 o1", "convert a.raw o1 a.raw",
    ])
    func overItself(command: String) throws {
        var script = CommandScript()
        script.images += [["create", "-q", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "o1"], ["create", "-q", "-f", "qcow2", "-b", "o1", "-F", "qcow2", "o2"]]
        try script.expectSame([command], comparing: ["a.raw": "raw", "o1": "qcow2", "o2": "qcow2"])
    }

    @Test("convert refuses an image that another process writes to")
    func writtenMeanwhile() throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare(CommandScript.standardImages)
        let writer = try ChildProcess("qemu-io", ["-f", "raw", "-c", "write 0 512", "-c", "sleep 60000", "a.raw"], in: pair.ours)
        defer { writer.send(SIGKILL) }
        // Not by trying: a reader that comes first would keep the writer out.
        #expect(try waitUntil { try !OpenFiles.lockedBytes(of: pair.ours.appending(path: "a.raw").path).isEmpty })
        for arguments in [["convert", "-f", "raw", "a.raw", "o"], ["convert", "-U", "-f", "raw", "a.raw", "o"], ["convert", "-f", "qcow2", "long.qcow2", "p"]] {
            let theirs = try ToolPair.run(ToolPair.qemu, arguments, in: pair.ours)
            #expect(try pair.runOurs(arguments) == theirs, "\(arguments)")
        }
    }
}
