import QAPIRuntime
import QMPMonitor
import StorageSchema
import StrataTesting
import Testing

// The expected answers were observed on qemu-storage-daemon 10.0.2.

private let version = #"{"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": "strata 0.1.0"}"#

private func generic(_ text: String) -> String { #"{"error": {"class": "GenericError", "desc": "\#(text)"}}"# }

@Suite("QMP session")
struct QMPSessionTests {
    @Test("the greeting names the version and offers out-of-band commands")
    func greeting() {
        #expect(Conversation().session.greeting.text() == #"{"QMP": {"version": \#(version), "capabilities": ["oob"]}}"#)
    }

    @Test("only qmp_capabilities works before the negotiation ends, and it works once")
    func negotiation() async {
        var conversation = Conversation()
        let expecting = #"{"error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}}"#
        #expect(await conversation.say(#"{"execute":"query-version"}{"execute":"nope"}"#) == [expecting, expecting])
        #expect(
            await conversation.say(#"{"execute":"qmp_capabilities","arguments":{"enable":3}}"#) == [
                generic("Invalid parameter type for 'enable', expected: array")
            ])
        #expect(await conversation.say(#"{"execute":"qmp_capabilities","arguments":{"x":3}}"#) == [generic("Parameter 'x' is unexpected")])
        #expect(!conversation.session.isNegotiated)
        #expect(
            await conversation.say(#"{"execute":"qmp_capabilities","arguments":{"enable":["oob","oob"]},"id":7}"#) == [
                #"{"return": {}, "id": 7}"#
            ])
        #expect(conversation.session.isNegotiated)
        #expect(
            await conversation.say(#"{"execute":"qmp_capabilities"}"#) == [
                #"{"error": {"class": "CommandNotFound", "desc": "Capabilities negotiation is already complete, command ignored"}}"#
            ])
    }

    @Test(
        "an id of any type comes back as it was sent",
        arguments: ["1", "18446744073709551615", #"{"a": [1, 2.5, "x"]}"#, "null", "true", #""\u00E9""#])
    func idIsEchoed(id: String) async {
        var conversation = await Conversation.negotiated()
        #expect(await conversation.say(#"{"execute":"query-version","id":\#(id)}"#) == [#"{"return": \#(version), "id": \#(id)}"#])
        #expect(
            await conversation.say(#"{"id":\#(id),"execute":"nope"}"#) == [
                #"{"id": \#(id), "error": {"class": "CommandNotFound", "desc": "The command nope has not been found"}}"#
            ])
    }

    @Test("errors of handlers keep their class, others become generic ones")
    func errorClasses() async {
        var conversation = await Conversation.negotiated()
        #expect(
            await conversation.say(
                #"{"execute":"block-export-del","arguments":{"id":"x"}}{"execute":"blockdev-del","arguments":{"node-name":"x"}}"#) == [
                    #"{"error": {"class": "DeviceNotFound", "desc": "gone"}}"#, generic("Failed to find node with node-name='x'"),
                ])
    }

    @Test(
        "a message that is no command is answered with what is wrong with it",
        arguments: [
            ("[]", "QMP input must be a JSON object"), ("3 ", "QMP input must be a JSON object"),
            (#""x""#, "QMP input must be a JSON object"),
            ("{}", "QMP input lacks member 'execute'"), (#"{"execute":3}"#, "QMP input member 'execute' must be a string"),
            (#"{"execute":"quit","arguments":null}"#, "QMP input member 'arguments' must be an object"),
            (#"{"execute":"query-version","foo":1}"#, "QMP input member 'foo' is unexpected"),
            (#"{"exec-oob":"query-version"}"#, "QMP input member 'exec-oob' is unexpected"),
            (#"{"execute":"query-version","arguments":{"x":1}}"#, "Parameter 'x' is unexpected"),
            (
                #"{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":{"path":"x","foo":2}}}}"#,
                "Parameter 'addr.data.foo' is unexpected"
            ),
            (
                #"{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":3}}}"#,
                "Invalid parameter type for 'addr.data', expected: object"
            ),
            (
                #"{"execute":"nbd-server-start","arguments":{"addr":{"type":"unix","data":{"path":"x"}},"max-connections":-1}}"#,
                "Parameter 'max-connections' expects uint32_t"
            ),
            (
                #"{"execute":"block-export-add","arguments":{"type":"nbd","id":"a","node-name":"x","bitmaps":[{"node":"x"}]}}"#,
                "Parameter 'bitmaps[0].name' is missing"
            ),
            (
                #"{"execute":"block_resize","arguments":{"node-name":"x","size":1e3}}"#,
                "Invalid parameter type for 'size', expected: integer"
            ),
        ])
    func badMessage(message: String, error: String) async {
        var conversation = await Conversation.negotiated()
        #expect(await conversation.say(message) == [generic(error)])
    }

    @Test(
        "text that is no JSON is answered with an error, and the command after it works",
        arguments: [
            (#"{"execute":"query-version" "id":3}"#, [#"expected separator in dict"#]),
            (#"{"execute":"query-version",}"#, ["expecting value"]),
            (#"{"a" 3}"#, ["missing : in object pair"]), ("nonsense", ["invalid keyword 'nonsense'"]), ("}", ["expecting value"]),
            ("]", ["expecting value"]), (#"{"a":01}"#, ["stray '01'", "expecting value"]),
            (#"{"a":"\q"}"#, ["invalid escape sequence in string"]),
            (#"{"a":1,"a":2}"#, ["duplicate key"]), (#"{"a":"\ud800"}"#, [#"\\ud800 is not a valid Unicode character"#]),
            ("ABC", ["stray 'A'"]),
            (#"{"execute":"query-version" & }"#, ["stray '&'", "expecting value"]), ("[1 2]", ["expected separator in list"]),
            ("[1,]", ["expecting value"]),
            ("{3:4}", ["key is not a string in object"]), (#"{"a":}"#, ["expecting value"]), (#"{"a" "b"]"#, ["missing : in object pair"]),
            ("-", [#"stray '-\n'"#]),
            (#"{"a":"abc"#, [#"stray '\"abc\n'"#]),
        ])
    func malformedText(text: String, errors: [String]) async {
        var conversation = await Conversation.negotiated()
        let answers = await conversation.say(text + "\n" + #"{"execute":"query-version","id":1}"#)
        #expect(answers == errors.map { generic("JSON parse error, \($0)") } + [#"{"return": \#(version), "id": 1}"#])
    }

    @Test("the byte 0xFF ends whatever was begun")
    func resynchronisation() async {
        var conversation = await Conversation.negotiated()
        #expect(await conversation.say(#"{"a":[{"b":"#).isEmpty)
        #expect(await conversation.say([0xff]) == [generic(#"JSON parse error, stray '\uFFFD'"#)])
        #expect(await conversation.say(#"{"execute":"query-version"}"#) == [#"{"return": \#(version)}"#])
    }

    @Test("commands may arrive byte by byte, or several at once without anything between them")
    func framing() async {
        var conversation = await Conversation.negotiated()
        var answers: [String] = []
        for byte in #"{"execute":"query-version"} {'execute':'query-block-exports'}"#.utf8 { answers += await conversation.say([byte]) }
        let exports = #"{"return": [{"id": "e", "type": "nbd", "node-name": "n", "shutting-down": false}]}"#
        #expect(answers == [#"{"return": \#(version)}"#, exports])
        #expect(await conversation.say(#"{"execute":"query-block-exports"}{"execute":"query-block-exports"}"#) == [exports, exports])
    }

    @Test("an out-of-band command overtakes the queue once it is switched on, others may not")
    func outOfBand() async {
        var session = await Conversation.negotiated(outOfBand: true).session
        let overtaking = session.receive(#"{"execute":"query-version"}{"exec-oob":"test-oob","id":1}{"exec-oob":"quit","id":2}"#.utf8)
        var answers: [String] = []
        for step in overtaking { answers.append(await Conversation.perform(step)?.text() ?? "") }
        #expect(
            answers == [
                #"{"return": "overtook", "id": 1}"#,
                #"{"id": 2, "error": {"class": "GenericError", "desc": "The command quit does not support OOB"}}"#,
            ])
        #expect(session.queuedCount == 1)
    }

    @Test("the negotiation itself does not overtake, and a message cannot be both kinds")
    func outOfBandMistakes() async {
        var conversation = await Conversation.negotiated(outOfBand: true)
        #expect(
            await conversation.say(#"{"exec-oob":"qmp_capabilities","id":2}{"exec-oob":"x","execute":"y","id":4}"#) == [
                #"{"id": 2, "error": {"class": "GenericError", "desc": "The command qmp_capabilities does not support OOB"}}"#,
                #"{"id": 4, "error": {"class": "GenericError", "desc": "QMP input member 'execute' clashes with 'exec-oob'"}}"#,
            ])
    }

    @Test("every command of the schema is listed by query-commands")
    func commandList() async throws {
        var conversation = await Conversation.negotiated()
        let answer = try JSONValue(parsing: try #require(await conversation.say(#"{"execute":"query-commands"}"#).first))
        let names = (answer["return"]?.array ?? []).compactMap { $0["name"]?.string }
        #expect(names.contains("blockdev-add"))
        #expect(names.sorted() == StorageSchemaTable.commandNames.sorted())
    }

    @Test("100,000 random and mutated messages neither stop a session nor make it useless", arguments: [1, 2])
    func fuzz(seed: UInt64) async {
        var random = SeededGenerator(seed: seed)
        var conversation = await Conversation.negotiated()
        let samples = [
            #"{"execute":"query-version","id":[1,{"a":"\u00e9"}]}"#,
            #"{"execute":"blockdev-add","arguments":{"driver":"raw","file":{"driver":"file","filename":"a"}}}"#,
            #"{"exec-oob":"test-oob","id":-1.5e3}"#,
            #"{'execute':'block-export-add','arguments':{'type':'nbd','id':'x','node-name':'n','bitmaps':['a',{'node':'n','name':'b'}]}}"#,
        ].map { Array($0.utf8) }
        let alphabet = Array(#"{}[]:,"'\0129.eE+-truefalsn "#.utf8) + [0x00, 0x0a, 0x7f, 0xc3, 0xa9, 0xff]
        for round in 0..<50_000 {
            var message = samples[Int(random.next() % UInt64(samples.count))]
            if round % 3 == 0 {
                message = (0..<Int(random.next() % 40)).map { _ in alphabet[Int(random.next() % UInt64(alphabet.count))] }
            } else {
                for _ in 0..<Int(random.next() % 4) {
                    message[Int(random.next() % UInt64(message.count))] = alphabet[Int(random.next() % UInt64(alphabet.count))]
                }
            }
            _ = await conversation.say(message)
        }
        _ = await conversation.say([0xff, 0x0a])
        let answers = await conversation.say(#"{"execute":"query-version"}"#)
        #expect(answers == [#"{"return": \#(version)}"#])
    }
}
