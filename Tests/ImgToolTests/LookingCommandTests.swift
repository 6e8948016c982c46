import Testing

/// Commands that only look: map and compare.
@Suite("map and compare say what qemu-img says", .serialized)
struct LookingCommandTests {
    @Test("map describes chains, holes, compressed and zero clusters, windows and ends that are no whole sector")
    func map() throws {
        var commands: [String] = []
        for name in ["a.raw", "b.qcow2", "c.qcow2", "d.qcow2", "long.qcow2", "e.qcow2", "empty.raw", "s3", "s400", "s1000"] {
            for output in ["", " --output=json", " --output human"] { commands.append("map\(output) \(name)") }
        }
        commands += [
            "map --start-offset 1M --max-length 100k d.qcow2", "map --start-offset 1M --max-length 100k --output=json d.qcow2", "map -s 512k -l 1 --output json d.qcow2",
            "map --start-offset 20M d.qcow2", "map --start-offset 20M --output json d.qcow2", "map --start-offset 10M --output json d.qcow2",
            "map --max-length 0 --output=json d.qcow2", "map --start-offset 7E --max-length 7E d.qcow2", "map -U d.qcow2",
            "map --image-opts driver=raw,offset=4096,size=8192,file.filename=a.raw", "map --output=json --image-opts driver=raw,offset=1M,size=1M,file.filename=a.raw",
            "map --image-opts driver=null-co,size=1M,read-zeroes=on --output json",
            "map json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"blkdebug\",\"image\":{\"driver\":\"file\",\"filename\":\"b.qcow2\"}}}",
        ]
        try CommandScript().expectSame(commands)
    }

    @Test("compare finds the first difference, and in strict mode differences of size and storage")
    func compare() throws {
        let names = ["a.raw", "b.qcow2", "c.qcow2", "d.qcow2", "long.qcow2", "e.qcow2", "empty.raw", "s3", "s400", "s1000"]
        var commands = ["convert -O raw d.qcow2 dd.raw", "compare -s d.qcow2 dd.raw", "compare -q d.qcow2 dd.raw", "compare -T none a.raw a.raw"]
        for left in names {
            for right in names { commands += ["compare \(left) \(right)", "compare -s \(left) \(right)"] }
        }
        commands += [
            "compare -q b.qcow2 e.qcow2", "compare -q -p a.raw long.qcow2", "compare --a-format qcow2 --b-format raw d.qcow2 dd.raw",
            "compare --image-opts driver=qcow2,file.filename=c.qcow2 driver=raw,file.filename=a.raw", "compare -U a.raw a.raw",
        ]
        var script = CommandScript()
        script.images += [["create", "-q", "g.raw", "1M"], ["io", "-f", "raw", "-c", "write -P 7 300001 100", "g.raw"]]
        // Backing files that end before the image.
        script.images += [
            ["create", "-q", "-f", "qcow2", "short.qcow2", "3M"], ["create", "-q", "-f", "qcow2", "-b", "short.qcow2", "-F", "qcow2", "over.qcow2", "10M"],
            ["create", "-q", "-f", "qcow2", "-b", "over.qcow2", "-F", "qcow2", "top.qcow2"],
        ]
        for left in ["e.qcow2", "over.qcow2", "top.qcow2"] { for right in ["e.qcow2", "over.qcow2", "top.qcow2"] { commands.append("compare -s \(left) \(right)") } }
        commands += ["compare g.raw e.qcow2", "compare e.qcow2 g.raw", "compare g.raw s3", "compare g.raw a.raw"]
        try script.expectSame(commands)
    }

    @Test("wrong command lines have the same words and exit statuses")
    func refusals() throws {
        try CommandScript().expectSame([
            "map", "map a b", "map --output foo c.qcow2", "map --output", "map nosuch", "map -f qcow2 a.raw", "map --image-opts -f raw x", "map --start-offset x c.qcow2",
            "map --start-offset -1 c.qcow2", "map --max-length x c.qcow2", "map --max-length -1 c.qcow2", "map --start-offset 8E c.qcow2",
            "map c.qcow2 --start-offset=99999999999999999999", "map -x",
            "compare", "compare a.raw", "compare a b c", "compare nosuch a.raw", "compare a.raw nosuch", "compare -f foo a.raw a.raw", "compare -F foo a.raw a.raw",
            "compare -T foo a.raw a.raw", "compare --image-opts -f raw a b", "compare -F qcow2 a.raw a.raw", "compare -x", "compare --object foo a.raw a.raw",
        ])
    }

    @Test("compare reports a read error with its position and status 4", arguments: [["d.qcow2", "blk"], ["blk", "d.qcow2"]])
    func readErrors(names: [String]) throws {
        let failing = "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"blkdebug\",\"image\":{\"driver\":\"file\",\"filename\":\"b.qcow2\"},\"inject-error\":[{\"event\":\"read_aio\",\"errno\":5,\"once\":false}]}}"
        let words = names.map { $0 == "blk" ? failing : $0 }
        let pair = try ToolPair()
        defer { pair.remove() }
        try pair.prepare(CommandScript.standardImages)
        let outcomes = [try pair.runOurs(["compare"] + words), try pair.runTheirs(["compare"] + words)]
        #expect(outcomes.map(\.status) == [4, 4])
        #expect(outcomes.allSatisfy { $0.errors.hasPrefix("qemu-img: Error while reading offset 0 of \(failing): ") && $0.errors.hasSuffix("Input/output error\n") }, "\(outcomes)")
    }
}
