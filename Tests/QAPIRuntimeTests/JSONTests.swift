import QAPIRuntime
import StrataTesting
import Testing

@Suite("JSON text")
struct JSONTests {
    @Test(
        "a value reads back from what it is written as, compact and pretty",
        arguments: [
            nil, true, -1, 9_223_372_036_854_775_807, .integer(.min), .unsigned(.max), 0.5, 1e300, -2.5e-10, "",
            "a\"\\\u{8}\u{c}\n\r\t\u{1}\u{7f}é😀/", [],
            [:], [1, [2, []], ["a": [:], "b": nil]], ["é": "ü", "": 0],
        ] as [JSONValue])
    func roundTrip(value: JSONValue) throws {
        #expect(try JSONValue(parsing: value.text()) == value)
        #expect(try JSONValue(parsing: value.text(pretty: true)) == value)
    }

    @Test("numbers keep all their digits")
    func exactNumbers() throws {
        #expect(try JSONValue(parsing: "18446744073709551615") == .unsigned(.max))
        #expect(try JSONValue(parsing: "-9223372036854775808") == .integer(.min))
        #expect(try JSONValue(parsing: "18446744073709551616") == .number(18_446_744_073_709_551_616))
        #expect(try JSONValue(parsing: "1e2") == .number(100))
        #expect(JSONValue.number(100).text() == "100")
        #expect(JSONValue.number(0.1).text() == "0.1")
        #expect(JSONValue(5 as UInt64) == .integer(5))
    }

    @Test("text is ASCII, with escapes as QEMU writes them")
    func escapes() {
        let value: JSONValue = "é😀\u{7f}\u{1}\n/<&"
        #expect(value.text() == #""\u00E9\uD83D\uDE00\u007F\u0001\n/<&""#)
    }

    @Test("the pretty layout is the one of qemu-img's --output=json")
    func prettyLayout() {
        let value: JSONValue = ["children": [], "data": [:], "list": [1, ["a": true]]]
        #expect(
            value.text(pretty: true) == """
                {
                    "children": [
                    ],
                    "data": {
                    },
                    "list": [
                        1,
                        {
                            "a": true
                        }
                    ]
                }
                """)
        #expect(value.text() == #"{"children": [], "data": {}, "list": [1, {"a": true}]}"#)
    }

    @Test("both kinds of quotes and all escapes are read")
    func strings() throws {
        #expect(try JSONValue(parsing: #"'a"b\'c'"#) == #"a"b'c"#)
        #expect(try JSONValue(parsing: #""\"\'\\\/\b\f\n\r\t\u0041\ud83d\ude00""#) == "\"'\\/\u{8}\u{c}\n\r\tA😀")
    }

    @Test(
        "a text that is not JSON is refused with one sentence and the place",
        arguments: [
            ("", "Expecting a JSON value", 0), ("{", "JSON parse error, premature EOI", 1), ("{}x", "Expecting at most one JSON value", 3),
            ("[1,]", "JSON parse error, expecting value", 3), ("nul", "JSON parse error, invalid keyword 'nul'", 0),
            (#"{"a":1,"a":2}"#, "JSON parse error, duplicate key", 12), ("01", "JSON parse error, stray '01'", 0),
            ("1e400", "JSON parse error, number out of range '1e400'", 0),
            (#"["\ud800\u0041"]"#, #"JSON parse error, \ud800 is not a valid Unicode character"#, 1),
            (#""\u12""#, #"JSON parse error, \u12 is not a valid Unicode character"#, 0),
            (#""\x""#, "JSON parse error, invalid escape sequence in string", 0), ("NaN", "JSON parse error, stray 'N'", 0),
        ])
    func refusals(text: String, message: String, offset: Int) {
        let error = #expect(throws: JSONError.self) { try JSONValue(parsing: text) }
        #expect(error?.message == message)
        #expect(error?.offset == offset)
    }

    @Test(
        "overlong, surrogate and cut UTF-8 is refused",
        arguments: [[0xc0, 0x80], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0xc3], [0x80]] as [[UInt8]])
    func invalidUTF8(bytes: [UInt8]) {
        #expect(throws: JSONError.self) { try JSONValue(parsing: [0x22] + bytes + [0x22]) }
    }

    @Test("limits hold for nesting, tokens and bytes, and the stream goes on afterwards")
    func limits() {
        var limits = JSONLimits()
        limits.nesting = 4
        limits.tokenCount = 20
        limits.byteCount = 100
        for (text, message) in [
            ("[[[[[\n", "JSON nesting depth limit exceeded"),
            ("[" + String(repeating: "1,", count: 30) + "\n", "JSON token count limit exceeded"),
            ("\"" + String(repeating: "x", count: 200) + "\"\n", "JSON token size limit exceeded"),
        ] {
            var parser = JSONStreamParser(limits: limits)
            var results: [Result<JSONValue, JSONError>] = []
            parser.feed(text.utf8, into: &results)
            guard case .failure(let error)? = results.first else {
                Issue.record("no error for \(message)")
                continue
            }
            #expect(error.message == message)
            results = []
            parser.feed([0xff, 0x0a], into: &results)
            results = []
            parser.feed("{}".utf8, into: &results)
            #expect(results == [.success([:])])
        }
    }

    @Test("a text of a million brackets is refused without using the stack")
    func deepNesting() {
        #expect(throws: JSONError.self) { try JSONValue(parsing: String(repeating: "[", count: 1_000_000)) }
    }

    @Test("a large array and a large object take time in proportion to their size")
    func largeContainers() throws {
        let array = try JSONValue(parsing: "[" + (0..<50_000).map(String.init).joined(separator: ",") + "]")
        #expect(array[49_999] == 49_999)
        let object = try JSONValue(parsing: "{" + (0..<20_000).map { "\"k\($0)\":\($0)" }.joined(separator: ",") + "}")
        #expect(object["k19999"] == 19_999)
    }

    @Test("every way of cutting a stream gives the same values and errors", arguments: [1, 2, 3, 4])
    func cuts(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let stream =
            Array(#" {"a":[1,2.5e3,"\u00e9é"]} tru] 'x' {"b":01} nonsense [true,false,null]{} -5 "#.utf8) + [0xff] + Array("[]\n12 ".utf8)
        var whole: [Result<JSONValue, JSONError>] = []
        var parser = JSONStreamParser()
        parser.feed(stream, into: &whole)
        for _ in 0..<200 {
            var pieces: [Result<JSONValue, JSONError>] = []
            var parser = JSONStreamParser()
            var rest = stream[...]
            while !rest.isEmpty {
                let count = min(rest.count, Int.random(in: 1...9, using: &random))
                parser.feed(rest.prefix(count), into: &pieces)
                rest = rest.dropFirst(count)
            }
            #expect(pieces == whole)
        }
        #expect(whole.count > 8)
    }

    @Test("a negative zero stays one")
    func negativeZero() throws {
        #expect(JSONValue.number(-0.0).text() == "-0.0")
        #expect(try JSONValue(parsing: "-0.0") == .number(-0.0))
        #expect(try JSONValue(parsing: "-0") == .integer(0))
    }

    @Test("values for people: names as words, containers further in")
    func plainText() {
        let value: JSONValue = ["data-file": "x", "bits": 16, "corrupt": false, "list": [1, ["a-b": nil]], "empty": []]
        #expect(
            value.object?.plainText(indentation: 2) == """
                  data file: x
                  bits: 16
                  corrupt: false
                  list:
                      [0]: 1
                      [1]:
                          a b: null
                  empty:

                """)
    }
}
