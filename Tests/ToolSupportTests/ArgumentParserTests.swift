import Testing
import ToolSupport

private enum Key: OptionKey { case help, format, quiet, share, options, backing, backingFormat, output, object }

private let parser = ArgumentParser<Key>([
    .init(.help, "h", "help", help: "help"),
    .init(.quiet, "q", "quiet", help: "say nothing"),
    .init(.share, "U", "force-share", help: "share"),
    .init(.format, "f", "format", value: "FMT", help: "format"),
    .init(.options, "o", "options", value: "OPTS", help: "options"),
    .init(.backing, "b", "backing", value: "FILE", help: "backing"),
    .init(.backingFormat, "F", "backing-format", value: "FMT", help: "format"),
    .init(.output, nil, "output", value: "KIND", help: "output"),
    .init(.object, nil, "object", value: "DEF", help: "object"),
])

@Suite("command lines split as getopt_long splits them")
struct ArgumentParserTests {
    @Test("letters group, values attach, operands mix with options")
    func shortOptions() throws {
        let parsed = try parser.parse(["disk", "-qUfqcow2", "-o", "a=b", "1M", "-", "-o", "c"])
        #expect(parsed.operands == ["disk", "1M", "-"])
        #expect(parsed.contains(.quiet) && parsed.contains(.share))
        #expect(parsed.last(.format) == "qcow2")
        #expect(parsed.all(.options) == ["a=b", "c"])
    }

    @Test("two dashes end the options, and an equals sign belongs to a letter's value")
    func endOfOptions() throws {
        let parsed = try parser.parse(["-f=raw", "--", "-q", "--format"])
        #expect(parsed.operands == ["-q", "--format"])
        #expect(parsed.last(.format) == "=raw")
        #expect(!parsed.contains(.quiet))
    }

    @Test("long options take values either way and may be shortened")
    func longOptions() throws {
        let parsed = try parser.parse(["--form", "raw", "--out=json", "--backing=", "--q"])
        #expect(parsed.last(.format) == "raw")
        #expect(parsed.last(.output) == "json")
        #expect(parsed.last(.backing) == "", "an exact name wins over longer ones")
        #expect(parsed.contains(.quiet))
    }

    @Test("a shortened word means QEMU's option before one that only we have")
    func ownWords() throws {
        let parser = ArgumentParser<Key>([.init(.backing, "b", "backing", help: ""), .init(.format, nil, "back-up", help: "").ownWord, .init(.output, nil, "output", value: "KIND", help: "").ownWord])
        #expect(try parser.parse(["--b", "--back", "--back-", "--o", "x"]).occurrences.map(\.key) == [.backing, .backing, .format, .output])
    }

    @Test("the last value counts, the order is kept")
    func repetition() throws {
        let parsed = try parser.parse(["-f", "raw", "-q", "--format", "qcow2"])
        #expect(parsed.last(.format) == "qcow2")
        #expect(parsed.occurrences.map(\.key) == [.format, .quiet, .format])
    }

    @Test("nothing behind a call for help matters")
    func help() throws {
        let parsed = try parser.parse(["-q", "--he", "--no-such", "-z"])
        #expect(parsed.contains(.help) && parsed.contains(.quiet))
    }

    @Test("a tool with commands leaves what follows the command alone")
    func stopsAtFirstOperand() throws {
        let tool = ArgumentParser<Key>([.init(.quiet, "q", "quiet", help: "")], stopsAtFirstOperand: true)
        #expect(try tool.parse(["-q", "info", "--no-such", "x"]).operands == ["info", "--no-such", "x"])
    }

    @Test(
        "what does not fit is refused in the C library's words",
        arguments: [
            (["-z"], "invalid option -- 'z'"),
            (["-qz"], "invalid option -- 'z'"),
            (["-f"], "option requires an argument -- 'f'"),
            (["-qf"], "option requires an argument -- 'f'"),
            (["--foo"], "unrecognized option '--foo'"),
            (["--foo=bar"], "unrecognized option '--foo=bar'"),
            (["--output"], "option '--output' requires an argument"),
            (["--outp"], "option '--output' requires an argument"),
            (["--quiet=1"], "option '--quiet' doesn't allow an argument"),
            (["--qui=1"], "option '--quiet' doesn't allow an argument"),
            (["--o", "x"], "option '--o' is ambiguous; possibilities: '--options' '--output' '--object'"),
            (["--bac"], "option '--bac' is ambiguous; possibilities: '--backing' '--backing-format'"),
        ])
    func refuses(arguments: [String], message: String) {
        #expect(throws: ArgumentError(message)) { try parser.parse(arguments) }
    }
}

@Suite("comma lists of options")
struct OptionListTests {
    private typealias Element = OptionList.Element

    @Test("keys, values, switches and doubled commas")
    func parses() {
        let list = OptionList(parsing: "cluster_size=4k,lazy_refcounts,backing_file=a,,b=c,x=")
        #expect(list.elements == [Element("cluster_size", "4k"), Element("lazy_refcounts", nil), Element("backing_file", "a,b=c"), Element("x", "")])
        #expect(list["cluster_size"] == "4k")
        #expect(OptionList(parsing: "a=1,a=2")["a"] == "2")
        #expect(OptionList(parsing: "").elements.isEmpty)
        #expect(OptionList(parsing: "k=1,,,v=2").elements == [Element("k", "1,"), Element("v", "2")])
    }

    @Test("a first element may be a bare value of an implied key")
    func impliedKey() {
        #expect(OptionList(parsing: "secret,id=a", impliedKey: "qom-type").elements == [Element("qom-type", "secret"), Element("id", "a")])
        #expect(OptionList(parsing: "id=a,b", impliedKey: "qom-type").elements == [Element("id", "a"), Element("b", nil)])
    }

    @Test("help is asked for by a word of its own")
    func help() {
        #expect(OptionList(parsing: "help").asksForHelp)
        #expect(OptionList(parsing: "size=1,?").asksForHelp)
        #expect(!OptionList(parsing: "a=help,help=1").asksForHelp)
        #expect(!OptionList(parsing: "a=1,,help").asksForHelp)
    }

    @Test("texts that would change when joined are refused", arguments: [
        ("a=b", true), ("a=b,,", true), ("", false), (",", false), (",,a=b", false), ("a=b,", false), ("a=b,,,", false),
    ])
    func wellFormed(text: String, isFine: Bool) {
        #expect(OptionList.isWellFormed(text) == isFine)
    }

    @Test("escaping is undone by parsing", arguments: ["", "a", "a,b", ",,", ",a,", "k=v,x"])
    func escaping(value: String) {
        #expect(OptionList(parsing: "f=" + OptionList.escaped(value)).elements == [Element("f", value)])
    }
}

@Suite("who acts on a command line")
struct ToolNameTests {
    @Test("a link's name selects the tool, and messages use it")
    func links() {
        #expect(ToolName.choose(["/usr/bin/qemu-img", "info", "x"])
            == .tool(.img, ToolInvocation(program: "/usr/bin/qemu-img", name: "qemu-img", arguments: ["info", "x"])))
        #expect(ToolName.choose(["qemu-storage-daemon"])
            == .tool(.daemon, ToolInvocation(program: "qemu-storage-daemon", name: "qemu-storage-daemon", arguments: [])))
        #expect(ToolName.choose(["qemu-io", "-c", "x"]) == .tool(.io, ToolInvocation(program: "qemu-io", name: "qemu-io", arguments: ["-c", "x"])))
        #expect(ToolName.choose(["qemu-nbd"]) == .tool(.nbd, ToolInvocation(program: "qemu-nbd", name: "qemu-nbd", arguments: [])))
    }

    @Test("otherwise the first argument does")
    func firstArgument() {
        #expect(ToolName.choose(["./strata", "img", "info"])
            == .tool(.img, ToolInvocation(program: "./strata img", name: "strata img", arguments: ["info"])))
        #expect(ToolName.choose(["strata", "--version"]) == .none(program: "strata", arguments: ["--version"]))
        #expect(ToolName.choose([]) == .none(program: "strata", arguments: []))
        #expect(ToolName.choose(["strata", "zip"]) == .none(program: "strata", arguments: ["zip"]))
    }
}
