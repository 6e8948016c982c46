import Foundation
import StrataTesting
import Testing

/// What all commands have in common, each with each: objects, lists of options, formats, cache modes, progress, silence, sharing.
@Suite("options that commands share")
struct CommonOptionTests {
    /// A command line in which `OPTIONS` and `IMAGE` are put in.
    private static let commands = [
        "amend OPTIONS -o lazy_refcounts=on IMAGE", "bench OPTIONS -c 5 IMAGE", "bitmap OPTIONS --add IMAGE b1", "check OPTIONS IMAGE", "commit OPTIONS IMAGE", "compare OPTIONS IMAGE IMAGE",
        "convert OPTIONS IMAGE o.raw", "convert OPTIONS -O qcow2 IMAGE o.qcow2", "create OPTIONS n.qcow2 1M", "dd OPTIONS bs=64k if=IMAGE of=o.dd", "info OPTIONS IMAGE", "map OPTIONS IMAGE", "measure OPTIONS -O qcow2 IMAGE",
        "rebase OPTIONS -b b.qcow2 -F qcow2 IMAGE", "resize OPTIONS IMAGE 12M", "snapshot OPTIONS -l IMAGE", "snapshot OPTIONS -c s1 IMAGE",
    ]

    private static let options = [
        "", "--object secret,id=s,data=x", "--object secret,id=s", "--object nosuch,id=s", "--object secret,data=x", "--object nonsense", "--object", "-q", "-p", "-q -p", "-t none", "-t writethrough", "-t directsync", "-t unsafe",
        "-t bogus", "-T none", "-T unsafe", "-T bogus", "-U", "-f qcow2", "-f raw", "-f nosuch", "-F qcow2", "--output=json", "--output json", "--output=human", "--output=xml", "--output", "--nosuch", "-Z",
    ]

    /// Images as lists of options: sound ones, and what can be wrong with them.
    private static let lists = [
        "driver=qcow2,file.filename=c.qcow2", "file.filename=c.qcow2", "driver=qcow2,file.driver=file,file.filename=c.qcow2,lazy-refcounts=on", "driver=qcow2,file.filename=nosuch", "driver=raw,file.filename=c.qcow2",
        "driver=nosuch,file.filename=c.qcow2", "driver=qcow2", "driver=qcow2,file.filename=c.qcow2,foo=bar", "c.qcow2", "driver=qcow2,file=c.qcow2", "driver=qcow2,file.driver=nosuch", "driver=qcow2,file.filename=c.qcow2,cache.direct=maybe",
        "driver=qcow2,file.filename=c.qcow2,read-only=on",
    ]

    /// An image with a password, which takes QEMU a second or two of reckoning: made once for all tests.
    private static let locked = Result {
        let folder = try TemporaryFolder()
        let key = ["--object", "secret,id=k,data=geheim", "-o", "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=1"]
        try mustRun(ToolPair.qemu, ["create", "-q", "-f", "qcow2"] + key + ["locked.qcow2", "2M"], in: folder.url)
        return try folder.read("locked.qcow2")
    }

    private func expectSame(_ command: String, _ variants: [(options: String, image: String)], besides image: (name: String, contents: [UInt8])? = nil) throws {
        let pair = try ToolPair(in: URL(fileURLWithPath: "/dev/shm"))
        defer { pair.remove() }
        try pair.prepare(CommandScript.standardImages)
        if let image { for folder in [pair.theirs, pair.ours] { try Data(image.contents).write(to: folder.appending(path: image.name)) } }
        for variant in variants {
            let line = command.replacing("OPTIONS", with: variant.options).replacing("IMAGE", with: variant.image)
            let words = line.split(separator: " ").map(String.init)
            let theirs = try pair.runTheirs(words)
            let ours = try pair.runOurs(words)
            #expect(ScriptDuel.areAlike(theirs, ours, words), "qemu-img \(line)\n=== qemu-img: \(theirs)=== ours: \(ours)")
        }
    }

    @Test("each with each", arguments: commands)
    func eachWithEach(command: String) throws {
        // QEMU's bench takes no objects, and where qemu-img has no -T ours traces.
        let name = String(command.prefix { $0 != " " })
        let hasCacheLetter = ["check", "compare", "convert", "rebase"].contains(name)
        let options = Self.options.filter { !(name == "bench" && $0.hasPrefix("--object")) && (hasCacheLetter || !$0.hasPrefix("-T")) }
        try expectSame(command, options.map { ($0, "c.qcow2") })
    }

    @Test("images as lists of options", arguments: commands.filter { !$0.hasPrefix("create") })
    func lists(command: String) throws {
        try expectSame(command, Self.lists.map { ("--image-opts", $0) } + [("--image-opts -f qcow2", "driver=qcow2,file.filename=c.qcow2")])
    }

    /// Whether a command needs the key at all is a deliberate difference for those that are not here; so is that a list of options may be rebased onto a relative name.
    @Test(
        "secrets",
        arguments: [
            "convert OPTIONS IMAGE o.raw", "compare OPTIONS IMAGE IMAGE", "commit OPTIONS IMAGE", "dd OPTIONS bs=64k if=IMAGE of=o.dd", "map OPTIONS IMAGE", "measure OPTIONS -O raw IMAGE",
            "snapshot OPTIONS -c s IMAGE", "bitmap OPTIONS --add IMAGE b",
        ])
    func secrets(command: String) throws {
        let locked = "driver=qcow2,file.filename=locked.qcow2"
        try expectSame(
            command,
            [
                ("--object secret,id=k,data=geheim --image-opts", locked + ",encrypt.key-secret=k"), ("--object secret,id=k,data=wrong --image-opts", locked + ",encrypt.key-secret=k"),
                ("--object secret,id=k,data=geheim --image-opts", locked + ",encrypt.key-secret=other"), ("--image-opts", locked + ",encrypt.key-secret=k"), ("--image-opts", locked), ("", "locked.qcow2"),
                ("--object secret,id=k,data=Z2VoZWlt,format=base64 --image-opts", locked + ",encrypt.format=luks,encrypt.key-secret=k"),
                ("--object secret,id=k,data=geheim --image-opts", locked + ",encrypt.format=aes,encrypt.key-secret=k"),
            ], besides: ("locked.qcow2", Self.locked.get()))
    }

    @Test(
        "every long word of qemu-img is there, and no other one makes a shortened word ambiguous",
        arguments: ["amend", "bench", "bitmap", "check", "commit", "compare", "convert", "create", "dd", "info", "map", "measure", "rebase", "resize", "snapshot"])
    func longWords(command: String) throws {
        let pair = try ToolPair()
        defer { pair.remove() }
        // A word of no letters is short for all of them.
        func words(_ outcome: ToolPair.Outcome) -> [String] { outcome.errors.matches(of: #/'(--[a-z-]+)'/#).map { String($0.output.1) }.sorted() }
        #expect(try words(pair.runOurs([command, "--="])) == words(pair.runTheirs([command, "--="])))
    }

    @Test("--object help says which objects there are, TYPE,help what one takes, and nothing else happens")
    func objectHelp() throws {
        let pair = try ToolPair(in: URL(fileURLWithPath: "/dev/shm"))
        defer { pair.remove() }
        // Which types and which of their properties there are is not the same: what both have is printed alike and in the same order.
        func lines(_ arguments: [String]) throws -> (ours: [String], theirs: [String]) {
            let (ours, theirs) = (try pair.runOurs(arguments), try pair.runTheirs(arguments))
            #expect(ours.status == theirs.status && ours.errors == theirs.errors, "\(arguments): \(ours) \(theirs)")
            return (ours.output.split(separator: "\n").map(String.init), theirs.output.split(separator: "\n").map(String.init))
        }
        let types = try lines(["create", "--object", "help"])
        let common = types.ours.filter(types.theirs.contains)
        #expect(types.ours.first == types.theirs.first && common == types.theirs.filter(types.ours.contains) && common.contains("  secret"))
        for type in common.dropFirst().map({ $0.drop { $0 == " " } }) {
            for question in ["\(type),help", "\(type),?", "\(type),id=a,help"] {
                let (ours, theirs) = try lines(["create", "--object", question])
                #expect(ours == theirs, "\(question)")
            }
        }
        #expect(try lines(["create", "--object", "nosuch,help"]).ours == types.ours)
        for command in Self.commands where !command.hasPrefix("bench") {
            let outcome = try pair.runOurs([String(command.prefix { $0 != " " }), "--object", "help"])
            #expect(outcome.status == 0 && outcome.errors.isEmpty && outcome.output.hasPrefix("List of user creatable objects:\n"), "\(command): \(outcome)")
        }
        for tool in ["io", "nbd", "daemon"] {
            let outcome = try ToolPair.run(ToolPair.binary, [tool, "--object", "secret,help"], in: pair.ours)
            #expect(try outcome == pair.runTheirs(["create", "--object", "secret,help"]), "\(tool)")
        }
    }

    @Test("words that mean the same do the same, and shortened ones")
    func otherWords() throws {
        try CommandScript(images: CommandScript.standardImages + [["snapshot", "-c", "s1", "b.qcow2"]]).expectSame([
            "convert --options cluster_size=4k -O qcow2 b.qcow2 o1", "info o1", "convert --snapshot s1 b.qcow2 o2", "convert --snapshot nosuch b.qcow2 o3", "convert --p x b.qcow2 o3", "convert --c b.qcow2 o4",
            "amend --options lazy_refcounts=on c.qcow2", "measure --options cluster_size=4k -O qcow2 b.qcow2", "measure --op cluster_size=4k -O qcow2 b.qcow2", "compare --left-format raw --right-format raw a.raw a.raw",
            "compare --left raw --a raw a.raw c.qcow2", "bench --o 64k -c 1 nosuch",
        ])
    }

    @Test("of two mistakes the same is told, and the line of -p stands in front of it where it does in qemu-img")
    func twoMistakes() throws {
        let commands = [
            "rebase -p --image-opts -f raw -b x y", "rebase -p --image-opts -f raw -u y", "rebase -p -t foo -b x y", "rebase -p -T foo -b x y", "commit -p --image-opts -f raw -t foo y",
            "amend -p --image-opts -f raw -o size=1M y", "amend -p -t foo -o size=1M y", "amend -p -o size=1M c.qcow2 d.qcow2", "compare -p --image-opts -f raw y z", "compare -p -T foo y z",
            "compare -p --image-opts -f raw -T foo y z", "compare --object secret,id=s y", "convert -p --image-opts -f raw y z", "convert -p -n --target-image-opts -O raw c.qcow2 driver=raw,file.filename=a.raw",
            "convert -p -n --target-image-opts -O raw nosuch driver=raw,file.filename=a.raw", "convert -p --image-opts -f raw --skip-broken-bitmaps y z", "convert --image-opts -f raw -C -c y z",
            "convert --image-opts -f raw -o foo=1 -n y z", "convert --image-opts -f raw --target-is-zero y z", "convert --image-opts -f raw y",
        ]
        try expectSame("OPTIONS", commands.map { (options: $0, image: "") })
    }
}
