import QAPIRuntime
import SampleSchema
import Testing

@Suite("Option text")
struct OptionTextTests {
    /// Everything that flat text can say.
    private struct Settings: QAPIObject {
        var name: String
        var size: Int?
        var fast: Bool?
        var cores: [UInt16]
        var levels: [Int]
        var words: [String]

        init(members decoder: inout ObjectDecoder) throws(QMPError) {
            name = try decoder.required("name")
            size = try decoder.optionalSize("size")
            fast = try decoder.optional("fast")
            cores = try decoder.optional("cores") ?? []
            levels = try decoder.optional("levels") ?? []
            words = try decoder.optional("words") ?? []
        }
        func encodeMembers(into object: inout ObjectEncoder) {
            object.set("name", name)
            object.set("size", size)
            object.set("fast", fast)
            object.set("cores", cores)
            object.set("levels", levels)
            object.set("words", words)
        }
    }

    private func decode(_ text: String) throws -> String {
        try Settings(decoding: OptionTextParser.parse(text, impliedName: "name"), mode: .optionText).json.text()
    }

    @Test(
        "flat text gives values of every kind",
        arguments: [
            ("a", #"{"name": "a", "cores": [], "levels": [], "words": []}"#),
            ("a,size=1G", #"{"name": "a", "size": 1073741824, "cores": [], "levels": [], "words": []}"#),
            ("b,,c,fast", #"{"name": "b,c", "fast": true, "cores": [], "levels": [], "words": []}"#),
            ("a,fast=on,nofast", #"{"name": "a", "fast": false, "cores": [], "levels": [], "words": []}"#),
            ("a,name=b", #"{"name": "b", "cores": [], "levels": [], "words": []}"#),
            ("a,cores=1-3,,5,cores=9", #"{"name": "a", "cores": [1, 2, 3, 5, 9], "levels": [], "words": []}"#),
            ("a,levels=-5--3,levels=0", #"{"name": "a", "cores": [], "levels": [-5, -4, -3, 0], "words": []}"#),
            ("a,words=x,words=y-z,size=0x10", #"{"name": "a", "size": 16, "cores": [], "levels": [], "words": ["x", "y-z"]}"#),
        ])
    func valid(text: String, json: String) throws {
        #expect(try decode(text) == json)
    }

    @Test(
        "what no list of integers is",
        arguments: [
            ("a,cores=3-1", "Parameter 'cores' expects uint16_t or a list of uint16_ts and ranges of them"),
            ("a,cores=1,,x", "Parameter 'cores' expects uint16_t or a list of uint16_ts and ranges of them"),
            ("a,cores=65536", "Parameter 'cores' expects uint16_t or a list of uint16_ts and ranges of them"),
            ("a,cores=", "Parameter 'cores' expects uint16_t or a list of uint16_ts and ranges of them"),
            ("a,levels=0-65536", "Parameter 'levels' asks for more than 65536 numbers"),
            ("a,levels=-9223372036854775808-9223372036854775807", "Parameter 'levels' asks for more than 65536 numbers"),
            ("a,size=1Q", "Parameter 'size' expects a size in bytes, optionally with a suffix such as k, M or G"),
            ("a,fast=maybe", "Parameter 'fast' expects 'on' or 'off'"), ("a,other=1", "Parameter 'other' is unexpected"),
            ("size=1", "Parameter 'name' is missing"), ("a,=1", "Invalid parameter ''"),
        ])
    func invalid(text: String, message: String) {
        let error = #expect(throws: QMPError.self) { try decode(text) }
        #expect(error?.message == message)
    }

    @Test("a range up to the largest number ends there")
    func largest() throws {
        #expect(try decode("a,levels=9223372036854775806-9223372036854775807").contains("[9223372036854775806, 9223372036854775807]"))
    }

    @Test("a renamed member is read and written by its other name, which errors say")
    func renaming() throws {
        let names = ["length": "board-length"]
        let board = try Board(decoding: ["board-length": 3], renaming: names)
        #expect(board == Board(length: 3))
        #expect(board.json(renaming: names) == ["board-length": 3])
        #expect(throws: QMPError("Parameter 'board-length' is missing")) { try Board(decoding: [:], renaming: names) }
        #expect(throws: QMPError("Parameter 'length' is unexpected")) { try Board(decoding: ["board-length": 3, "length": 1], renaming: names) }
        #expect(throws: QMPError("Invalid parameter type for 'board-length', expected: integer")) {
            try Board(decoding: ["board-length": "x"], renaming: names)
        }
    }

    @Test("values are values: a changed copy leaves the original alone, also behind a box")
    func copies() {
        let original = Board(length: 1, next: Board(length: 2))
        var copy = original
        copy.next?.length = 3
        #expect(original.next?.length == 2)
        #expect(copy != original)
    }

    @Test("generated decoders name the path of what is wrong")
    func paths() {
        for (json, message) in [
            (#"{"number": 1, "job": {"kind": "cut", "at": [1, 70000]}}"#, "Parameter 'job.at[1]' expects uint16_t"),
            (#"{"number": 1, "job": {"kind": "saw"}}"#, "Parameter 'job.kind' does not accept value 'saw'"),
            (#"{"number": 1, "job": {"kind": "cut"}}"#, "Parameter 'job.at' is missing"),
            (#"{"number": 1, "job": {"kind": "rest", "at": []}}"#, "Parameter 'job.at' is unexpected"),
            (#"{"number": 1, "job": {"kind": "join", "glue": {"at": "x"}}}"#, "Invalid parameter type for 'job.glue.at', expected: array"),
            (#"{"number": 1, "job": {"kind": "join", "then": {"kind": "join", "glue": 5}}}"#, "Invalid parameter type for 'job.then.glue', expected: Glue"),
            (#"{"number": -1, "job": {"kind": "rest"}}"#, "Parameter 'number' expects uint64"),
            (#"{"number": 1, "job": []}"#, "Invalid parameter type for 'job', expected: object"),
        ] {
            let error = #expect(throws: QMPError.self) { try Order(decoding: JSONValue(parsing: json)) }
            #expect(error?.message == message)
        }
    }

    @Test("what a generated type encodes it decodes again, unions in unions and alternates included")
    func roundTrip() throws {
        for text in [
            #"{"number": 18446744073709551615, "paid": true, "job": {"kind": "cut", "self": "me", "at": [0, 65535]}}"#,
            #"{"number": 0, "job": {"kind": "join", "glue": null, "then": {"kind": "join", "glue": "bone", "then": {"kind": "rest"}}}}"#,
            #"{"number": 0, "job": {"kind": "join", "glue": {"at": [1]}}}"#,
        ] {
            let order = try Order(decoding: JSONValue(parsing: text))
            #expect(order.json.text() == text)
        }
    }
}
