import QAPIRuntime
import StorageSchema
import Testing
import ToolSupport

@testable import QMPTool

@Suite("Command words of the qmp tool")
struct CommandWordsTests {
    private let schema = IntrospectedSchema(StorageSchemaTable.introspection)

    private func arguments(_ command: String, _ words: String...) throws -> JSONValue {
        try schema.typedArguments(try CommandWords.dotted(words), of: command)
    }

    @Test("words take the types that the command's description gives them")
    func typing() throws {
        #expect(
            try arguments("blockdev-add", "driver=null-co", "node-name=7", "size=64k", "read-zeroes=on", "cache.direct=off")
                == ["driver": "null-co", "node-name": "7", "size": 65536, "read-zeroes": true, "cache": ["direct": false]])
        #expect(
            try arguments("blockdev-add", "driver=raw", "node-name=r", "file.driver=file", "file.filename=a,b=c", "offset=-1")
                == ["driver": "raw", "node-name": "r", "file": ["driver": "file", "filename": "a,b=c"], "offset": -1])
        #expect(try arguments("blockdev-add", "driver=qcow2", "file=node", "backing=")["file"] == "node")
        #expect(
            try arguments(
                "nbd-server-start", "addr.type=inet", "addr.data.host=::1", "addr.data.port=10809", "addr.data.ipv6=true",
                "max-connections=5")
                == ["addr": ["type": "inet", "data": ["host": "::1", "port": "10809", "ipv6": true]], "max-connections": 5])
        #expect(
            try arguments("block-export-add", "type=nbd", "id=1", "node-name=n", "bitmaps.0=b", "bitmaps.1.node=n", "bitmaps.1.name=c")[
                "bitmaps"]
                == ["b", ["node": "n", "name": "c"]])
    }

    @Test("what the server does not know is left for the server to refuse")
    func unknown() throws {
        #expect(try arguments("blockdev-add", "driver=null-co", "colour=5") == ["driver": "null-co", "colour": "5"])
        #expect(try arguments("no-such-command", "a=5") == ["a": "5"])
    }

    @Test("a word that cannot be what is wanted is refused by name")
    func refusal() {
        let error = #expect(throws: ToolFailure.self) {
            try arguments("blockdev-add", "driver=raw", "file.driver=null-co", "file.size=big")
        }
        #expect(error?.message == "Parameter 'file.size' expects an integer, not 'big'")
    }

    @Test(
        "a line is split as a shell splits it",
        arguments: [
            ("", []), ("  quit ", ["quit"]), ("a b=c\td='e f'", ["a", "b=c", "d=e f"]),
            (#"a b="c \"d\"" e\ f"#, ["a", #"b=c "d""#, "e f"]),
            (#"a {"b": "c d"} "#, ["a", #"{"b": "c d"} "#]), ("a ''", ["a", ""]),
        ] as [(String, [String])])
    func splitting(line: String, words: [String]) throws {
        #expect(try CommandWords.split(line) == words)
    }

    @Test("an open quote and a lonely backslash are refused", arguments: ["a 'b", "a \"b", "a b\\"])
    func badLines(line: String) {
        #expect(throws: ToolFailure.self) { try CommandWords.split(line) }
    }

    @Test("JSON arguments stand alone and are an object")
    func json() throws {
        #expect(try CommandWords(["go", #"{"a": 1}"#]).arguments == .json(try #require((["a": 1] as JSONValue).object)))
        for words in [["go", "{}", "x=1"], ["go", "{"], []] { #expect(throws: ToolFailure.self) { try CommandWords(words) } }
    }
}
