import QAPIRuntime
import StrataTesting
import Testing

@Suite("Dotted key=value text")
struct KeyValueTests {
    @Test(
        "text becomes the object that it describes",
        arguments: [
            ("", [:]), ("a=1", ["a": "1"]), ("a=1,b=", ["a": "1", "b": ""]), ("a=x,,y,b=z", ["a": "x,y", "b": "z"]),
            ("a=1,a=2", ["a": "2"]),
            ("a.b.c=1,a.d=2", ["a": ["b": ["c": "1"], "d": "2"]]), ("a.1=y,a.0=x", ["a": ["x", "y"]]), ("a.0.b=x", ["a": [["b": "x"]]]),
            ("a=b=c,", ["a": "b=c"]),
            ("raw,a=1", ["driver": "raw", "a": "1"]), ("a=é", ["a": "é"]),
        ] as [(String, JSONValue)])
    func valid(text: String, value: JSONValue) throws {
        #expect(try KeyValueParser.parse(text, impliedKey: "driver") == value)
    }

    @Test(
        "text that describes nothing is refused, naming the parameter",
        arguments: [
            ("a=1,size", "Expected '=' after parameter 'size'"), ("a", "Expected '=' after parameter 'a'"),
            (",a=1", "Invalid parameter ''"), (".x=1", "Invalid parameter '.x'"),
            ("a..b=1", "Invalid parameter 'a..b'"), ("=1", "Invalid parameter ''"), ("a b=1", "Invalid parameter 'a b'"),
            ("0=1", "Invalid parameter '0'"),
            ("foo.0=1,foo.bar=2", "Parameters 'foo.*' used inconsistently"), ("foo=1,foo.bar=2", "Parameters 'foo.*' used inconsistently"),
            ("foo.bar=2,foo=1", "Parameters 'foo.*' used inconsistently"), ("foo.1=1", "Parameter 'foo.0' missing"),
            ("a.b.1=1", "Parameter 'a.b.0' missing"),
        ])
    func invalid(text: String, message: String) {
        let error = #expect(throws: QMPError.self) { try KeyValueParser.parse(text) }
        #expect(error?.message == message)
    }

    @Test(
        "a parameter `help` without a value asks, wherever it stands",
        arguments: [
            ("help", [:], true), ("?", [:], true), ("raw,help", ["driver": "raw"], true), ("help,a=1", ["a": "1"], true),
            ("a=1,?", ["a": "1"], true), ("a=help", ["a": "help"], false), ("helpful", ["driver": "helpful"], false),
            ("help=1", ["help": "1"], false),
        ] as [(String, JSONValue, Bool)])
    func help(text: String, value: JSONValue, asks: Bool) throws {
        let result = try KeyValueParser.parseWithHelp(text, impliedKey: "driver")
        #expect(result.value == value)
        #expect(result.asksForHelp == asks)
        if text == "a=1,?" { #expect(throws: QMPError("Expected '=' after parameter '?'")) { try KeyValueParser.parse(text) } }
    }

    @Test("a key of a thousand parts is refused")
    func deepKey() {
        #expect(throws: QMPError.self) { try KeyValueParser.parse(Array(repeating: "a", count: 1000).joined(separator: ".") + "=1") }
    }

    @Test("scalars are read from text, strictly")
    func scalars() throws {
        func decode<T: QAPIValue>(_ text: String, as type: T.Type) throws -> T { try T(decoding: .string(text), mode: .keyValue) }
        #expect(try decode("on", as: Bool.self) && !decode("off", as: Bool.self))
        #expect(try decode("-12", as: Int.self) == -12)
        #expect(try decode("0x10", as: Int.self) == 16)
        #expect(try decode("255", as: UInt8.self) == 255)
        #expect(try decode("1.5", as: Double.self) == 1.5)
        for text in ["", "+1", "1k", "0x", "0x-1", "--1", "99999999999999999999"] {
            #expect(throws: QMPError.self) { try decode(text, as: Int.self) }
        }
        #expect(throws: QMPError.self) { try decode("maybe", as: Bool.self) }
        #expect(throws: QMPError.self) { try Int(decoding: "12") }
    }

    @Test("random text never traps", arguments: [21, 22])
    func fuzz(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let alphabet = Array("abc019..,,==-_ é")
        for _ in 0..<20_000 {
            let text = String(
                (0..<Int.random(in: 0...24, using: &random)).map { _ in alphabet[Int.random(in: 0..<alphabet.count, using: &random)] })
            _ = try? KeyValueParser.parse(text, impliedKey: Bool.random(using: &random) ? "a" : nil)
        }
    }
}
